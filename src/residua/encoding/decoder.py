"""What an encoder-decoder's decoder reads: its targets, shifted right by one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from residua.errors import EncodeError

IGNORED = -100  # a label that is not one, by transformers' convention


def has_decoder(model: object) -> bool:
    """Whether it is an encoder-decoder: its positions are then those of the decoder."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def decoder_inputs(model: Any, labels: Tensor) -> Tensor:
    """The decoder's input ids int64 (b, t) for labels int64 (b, t), as in training: where the model has a way of its
    own (mBART begins with the language's code, which its targets end with), that; else after the start token."""
    own, config = getattr(model, "prepare_decoder_input_ids_from_labels", None), model.config
    try:
        if own is not None:
            return own(labels=labels.clone())  # some write in what they are given
        start, pad = config.decoder_start_token_id, config.pad_token_id
        shifted = labels.roll(1, dims=1)
        shifted[:, 0] = start
        return shifted.masked_fill(shifted == IGNORED, start if pad is None else pad)
    except (AttributeError, TypeError, ValueError) as error:  # what None in their place leads to
        if None not in (getattr(config, name, None) for name in ("decoder_start_token_id", "pad_token_id")):
            raise
        raise EncodeError(
            f"the {type(model).__name__} does not know which token its targets begin with, or pads with ({error}); set "
            "model.config.decoder_start_token_id and model.config.pad_token_id as in its training"
        ) from error
