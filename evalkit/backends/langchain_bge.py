"""LangChain's HuggingFaceBgeEmbeddings, which the cards of the bge models name, with evalkit's recipe."""

from __future__ import annotations

from evalkit.backends.langchain import (
    LOADER,
    LangChainEmbedder,
    encoding_arguments,
    loading_arguments,
    refuse_line_breaks,
)
from evalkit.backends.libraries import CheckedModel, follow_files, library_model, quiet, refuse_other_recipe
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

NAME = "langchain-bge"


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model. Raises EvalkitError for a recipe that the class can't be told."""
    return library_model(
        settings,
        runtime,
        open_embeddings,
        name=NAME,
        package="langchain-community",
        class_name="HuggingFaceBgeEmbeddings",
        check=refuse_other_recipe,
        check_inputs=refuse_line_breaks,
    )


def open_embeddings(model: CheckedModel) -> LangChainEmbedder:
    """Load HuggingFaceBgeEmbeddings. Where a folder's name holds `-zh` it puts a prompt of its own; the recipe's is put back."""
    with quiet(LOADER):  # it says that it is deprecated, which whoever names it knows
        from langchain_community.embeddings import HuggingFaceBgeEmbeddings

        embeddings = HuggingFaceBgeEmbeddings(
            model_name=str(model.folder),
            model_kwargs={**loading_arguments(model), "torch_dtype": model.dtype},
            encode_kwargs=encoding_arguments(model),
            embed_instruction=model.settings.document_prompt,
        )
    follow_files(model, embeddings.client)
    embeddings.query_instruction = model.settings.query_prompt
    return LangChainEmbedder(embeddings)
