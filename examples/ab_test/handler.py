"""Write a headline for a user, in the style that the archive's model-config.yaml says."""

import zts


class Headline(zts.Handler):
    def load(self, context):
        # Keys that zts does not know are the handler's own.
        self.style = context.model_yaml_config["style"]

    def predict(self, inputs):
        return [{"headline": self.style.format(user=item["user"])} for item in inputs]
