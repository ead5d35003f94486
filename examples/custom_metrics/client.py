"""Send three French texts, with the header that the handler puts into its metric."""

import zts

TEXTS = ["Je pense, donc je suis.", "L'État, c'est moi.", "Après nous, le déluge !"]

with zts.Client() as client:
    for text, answer in zip(TEXTS, client.predict_many("words", TEXTS, headers={"X-Language": "fr"}), strict=True):
        print(answer["words"], "words:", text)
