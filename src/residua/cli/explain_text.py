"""``residua explain --text``: the token after a prompt, and the remembered contexts that moved it."""

from __future__ import annotations

import warnings
from pathlib import Path

from residua.cli.language import model_of
from residua.cli.texts import prompt_of


def explained(reader, path: Path, prompt: str | None, file: Path | None, context: int, excluded, model, dtype):
    """The explanation, and the same in JSON types, with tokens as text."""
    import residua as rs

    if prompt is not None and Path(prompt).is_file():
        warnings.warn(f"{prompt} is explained as a text; its content would be --prompt-file", stacklevel=2)
    text = prompt_of(prompt, file)
    if reader.stateful:
        warnings.warn("the continuous cache is left out: there is no text before the prompt", stacklevel=2)
        reader = reader.over
    language, tokenizer = model_of(reader.memory, path, model, dtype)
    why = rs.lm.explain(language, tokenizer, text, reader, context=context, exclude_ids=excluded)
    return why, _plain(why)


def _plain(why) -> dict:
    tokens = [
        {"token": token, "text": why.text(token), "base": base, "score": score}
        for token, base, score in zip(why.tokens, why.base, why.scores)
    ]
    neighbours = [
        {
            "document": int(document),
            "name": why.names.get(int(document)),
            "offset": why.offsets[i],
            "context": why.text(why.contexts[i]),
            "next": why.text(why.labels[i]),
            "distance": why.distances[i],
            "weight": why.weights[i],
            "contributions": {word: values[i] for word, values in why.contributions.items()},
        }
        for i, document in enumerate(why.ids)
    ]
    return {
        "prediction": why.text(why.prediction),
        "base_prediction": why.text(why.base_prediction),
        "scale": why.scale,
        "tokens": sorted(tokens, key=lambda token: -token["score"]),
        "neighbours": neighbours,
    }
