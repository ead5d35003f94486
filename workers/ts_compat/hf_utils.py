"""``ts.utils.hf_utils``: fetch a model from the Hugging Face Hub. Needs the package huggingface_hub."""

from __future__ import annotations

from huggingface_hub import snapshot_download  # type: ignore[import-not-found, unused-ignore]

__all__ = ["download_model"]

# Weights in torch's and safetensors' forms, configuration, tokenizer; not the same weights for other frameworks.
_WANTED = ["*.json", "*.safetensors", "*.bin", "*.pt", "*.model", "*.txt", "*.py", "*.jinja"]


def download_model(
    model_id: str = "meta-llama/Meta-Llama-3.1-8B-Instruct",
    revision: str = "main",
    model_path: str = ".cache",
    use_auth_token: bool = True,
) -> str:
    """Return the folder that holds the model, fetched unless it is there.

    Args:
        model_id: Its name on the hub.
        revision: Branch, tag or commit.
        model_path: Folder of all fetched models.
        use_auth_token: Use the token of ``huggingface-cli login``, where there is one.
    """
    folder: str = snapshot_download(
        model_id, revision=revision, cache_dir=model_path, token=use_auth_token or None, allow_patterns=_WANTED
    )
    return folder
