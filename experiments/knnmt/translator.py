"""A small translator, trained from scratch on pairs: an encoder-decoder of Marian's kind and its tokenizer."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianConfig, MarianMTModel, PreTrainedTokenizerFast

from experiments.knnmt.catalogues import Pair

BATCH, LONGEST = 64, 64  # pairs per step, and tokens of a text


def translator(pairs: list[Pair], settings: dict) -> tuple[Any, Any]:
    """(model, tokenizer), ready to translate: from the folder of checkpoints where they are there, else trained."""
    made = {name: settings[name] for name in ("steps", "width", "layers", "vocabulary")}
    digest = hashlib.sha256(json.dumps([made, pairs]).encode()).hexdigest()[:12]
    folder = Path(settings["checkpoints"]) / f"translator-{digest}"
    if not (folder / "config.json").exists():
        model, tokenizer = train(pairs, **made)
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def train(pairs: list[Pair], steps: int, width: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    """Teacher forcing with label smoothing, as in "Attention is all you need", for so many steps."""
    tokenizer = trained_tokenizer(pairs, vocabulary)
    torch.manual_seed(0)
    sides = {"layers": layers, "attention_heads": 4, "ffn_dim": 4 * width}
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(tokenizer),
            decoder_vocab_size=len(tokenizer),
            d_model=width,
            max_position_embeddings=2 * LONGEST,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
            forced_eos_token_id=None,
            scale_embedding=True,
            **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sides.items()},
        )
    ).train()
    # Texts of like length share a batch, so that little of it is padding.
    ordered = sorted(pairs, key=lambda pair: len(pair[0]))
    groups = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    order = torch.randperm(len(groups)).tolist()
    for _ in range(steps):
        order = order or torch.randperm(len(groups)).tolist()
        group = groups[order.pop()]
        source, target = (read(tokenizer, [pair[side] for pair in group]) for side in (0, 1))
        labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)
        logits = model(**source, labels=labels).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model, tokenizer


def trained_tokenizer(pairs: list[Pair], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of both languages together, which closes each text with its eos."""
    bpe = ByteLevelBPETokenizer()
    texts = [text for pair in pairs for text in pair]
    bpe.train_from_iterator(texts, vocab_size=vocabulary, special_tokens=["<pad>", "</s>"], show_progress=False)
    bpe._tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="</s>", pad_token="<pad>")


def read(tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    """Padded input ids and their mask."""
    tokens = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=LONGEST)
    return {name: tokens[name] for name in ("input_ids", "attention_mask")}


def translate(model: Any, tokenizer: Any, texts: list[str], beams: int) -> list[str]:
    """What the model, as it is or attached, makes of texts."""
    out: list[str] = []
    for start in range(0, len(texts), BATCH):
        some = read(tokenizer, texts[start : start + BATCH])
        tokens = model.generate(**some, num_beams=beams, do_sample=False, max_new_tokens=LONGEST)
        out += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return out
