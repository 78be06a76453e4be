"""Makes the small tokenizers of testdata/transform/text and records what the original libraries make of texts.

    python testdata/make_text_answers.py           # answers, from the committed tokenizers
    python testdata/make_text_answers.py --train   # the tokenizers too; their bytes may change with the version

writes <family>_tokenizer.json (trained on corpus.txt, no network) and <family>_answers.json for three families: WordPiece
(BERT), byte-level BPE (RoBERTa) and Unigram (XLM-RoBERTa). An answers file holds

- `texts`: texts and pairs by name;
- `encodings`: their ids and type ids, by the library `tokenizers` with its own truncation;
- `entities`: what transformers' TokenClassificationPipeline makes of given logits, for both aggregations;
- `predictions`: the softmax and the token texts of transformers' FillMaskPipeline, for logits by `logit`.

pooling.json holds sentence-transformers' pooling and normalising, written in numpy after its formulas (the library needs
PyTorch). Numbers that would be long are given by the formula `logit`, which the Rust tests share.

Needs testdata/requirements-text.txt.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tokenizers
import transformers
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast
from transformers.pipelines.token_classification import AggregationStrategy, TokenClassificationPipeline

FOLDER = Path(__file__).resolve().parent / "transform" / "text"
CORPUS = FOLDER / "corpus.txt"

LONG = " ".join(CORPUS.read_text(encoding="utf-8").splitlines()[:24])
TEXTS = {
    "plain": "The harbour lies still in the morning.",
    "empty": "",
    "blank": "   ",
    "spaces around": "  two   words \t and\na line \r\n",
    "quotes": "didn't \"couldn't\" it's -- 3.14 (100%)",
    "emoji": "what a game \U0001f389\U0001f389 \U0001f469\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f1ea\U0001f1fa",
    "Chinese and Japanese": "\u6771\u4eac\u306b\u4f4f\u3093\u3067\u3044\u307e\u3059\u3002\u6211\u559c\u6b22\u559d\u8336 tea\u8336",
    "combining": "cafe\u0301 cafe\u0301\u0302 na\u0308ive A\u030angstro\u0308m",
    "precomposed": "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m STRASSE Stra\u00dfe",
    "compatibility": "\ufb01ne \u2167 \u00bd \uff21\uff22\uff23 \u3392 \ufdfa",
    "Arabic, Thai, Hindi": "\u0645\u0631\u062d\u0628\u0627 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0928\u092e\u0938\u094d\u0924\u0947",
    "control": "a\u0000b\u0001c\u0007 \ufffd \u200b\u00ad\ufeff end",
    "special tokens written out": "a [MASK] b <mask> c [SEP] </s> [CLS] <s> [PAD] <pad> [UNK] <unk>",
    "one long word": "outhaul" * 30,
    "unknown letters": "\u16a0\u16a1\u16a2 rune \u16a3",
    "upper": "WOLFGANG LIVES IN BERLIN",
    "long": LONG,
    "very long": " ".join([LONG] * 4),
}
PAIRS = {
    "two texts": ("What is the capital of France?", "The capital of France is Paris."),
    "first empty": ("", "The capital of France is Paris."),
    "second empty": ("What is the capital of France?", ""),
    "both empty": ("", ""),
    "first long": (LONG, "The capital of France is Paris."),
    "second long": ("What is the capital of France?", LONG),
    "both long": (LONG, " ".join([LONG] * 2)),
    "emoji and Chinese": ("\U0001f389 \u6771\u4eac", "caf\u00e9 \u6211\u559c\u6b22 \U0001f469\u200d\U0001f467"),
    "one long word each": ("outhaul" * 40, "harbour" * 30),
}
MASKED = {
    "[MASK]": ["The capital of France is [MASK].", "[MASK] is the [MASK] of days"],
    "<mask>": ["The capital of France is <mask>.", "<mask> is the <mask> of days"],
}
ENTITY_TEXTS = [
    "My name is Wolfgang and I live in Berlin.",
    "Anna Karlsson works in Gothenburg \U0001f389 for \u6771\u4eac Bank",
    "Cafe\u0301 Zu\u0308rich \u2764\ufe0f na\u00efve \u16a0\u16a1 rune",
    "  spaces  before Pedro Alvarez",
    "",
]
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "plain", "two-parts"]


def logit(position: int, index: int) -> float:
    """A number for each place of a model's output; the Rust tests have the same formula."""
    return ((position * 131 + index * 7919) % 1009) / 100.0


# --- tokenizers -----------------------------------------------------------------------------------------------------


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    tokenizer.train([str(CORPUS)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece()
    # As in all-MiniLM-L6-v2: padding and truncation of the file's own, which a server has to take off.
    tokenizer.enable_padding(length=128, pad_id=0, pad_token="[PAD]")
    tokenizer.enable_truncation(128)
    return tokenizer


def bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    mask = AddedToken("<mask>", lstrip=True, special=True)
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", mask],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(CORPUS)], trainer)
    ids = {name: tokenizer.token_to_id(name) for name in ("<s>", "</s>")}
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), add_prefix_space=False
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True, special=True)],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train([str(CORPUS)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")],
    )
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


FAMILIES = {
    "wordpiece": (wordpiece, {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}),
    "bpe": (bpe, {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}),
    "unigram": (unigram, {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}),
}


# --- answers --------------------------------------------------------------------------------------------------------


def encodings(tokenizer: Tokenizer) -> list[dict]:
    """Every text and pair whole, then cut to several lengths on either side."""
    rows = []

    def add(name, text, pair, max_tokens, direction):
        if max_tokens is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(max_tokens, strategy="longest_first", direction=direction)
        encoding = tokenizer.encode(text, pair)
        rows.append({
            "name": name,
            "max_tokens": max_tokens,
            "direction": direction,
            "ids": encoding.ids,
            "type_ids": encoding.type_ids,
        })

    assert not TEXTS.keys() & PAIRS.keys()
    for name, text in TEXTS.items():
        if name != "very long":
            add(name, text, None, None, "right")
    for name, (text, pair) in PAIRS.items():
        if "long" not in name:
            add(name, text, pair, None, "right")
    for direction in ("right", "left"):
        for name in ("plain", "emoji", "combining", "one long word", "long", "very long"):
            for max_tokens in (3, 8, 33):
                add(name, TEXTS[name], None, max_tokens, direction)
        for name, (text, pair) in PAIRS.items():
            for max_tokens in (5, 8, 16, 33):
                add(name, text, pair, max_tokens, direction)
    tokenizer.no_truncation()
    return rows


def entities(fast: PreTrainedTokenizerFast, random: np.random.RandomState) -> list[dict]:
    """What the pipeline does after the model has run, with logits that make several entities."""
    pipeline = TokenClassificationPipeline.__new__(TokenClassificationPipeline)
    pipeline.tokenizer = fast
    pipeline.model = SimpleNamespace(config=SimpleNamespace(id2label=dict(enumerate(LABELS))))
    rows = []
    for text in ENTITY_TEXTS:
        encoding = fast(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        count = len(encoding["input_ids"])
        # One decimal keeps the file short; float32 as a model gives it.
        logits = (np.round(random.normal(0.0, 2.0, (count, len(LABELS))), 1) + 0.0).astype(np.float32)
        maxes = np.max(logits, axis=-1, keepdims=True)
        shifted = np.exp(logits - maxes)
        scores = shifted / shifted.sum(axis=-1, keepdims=True)
        row = {"text": text, "logits": [[float(str(value)) for value in token] for token in logits]}
        for strategy in (AggregationStrategy.NONE, AggregationStrategy.SIMPLE):
            before = pipeline.gather_pre_entities(
                text,
                np.array(encoding["input_ids"]),
                scores,
                encoding["offset_mapping"],
                np.array(encoding["special_tokens_mask"]),
                strategy,
            )
            found = pipeline.aggregate(before, strategy)
            row[strategy.value] = [
                {
                    "entity": entity.get("entity", entity.get("entity_group")),
                    "score": float(entity["score"]),
                    "start": int(entity["start"]),
                    "end": int(entity["end"]),
                    "word": entity["word"],
                }
                for entity in found
                if entity.get("entity") != "O" and entity.get("entity_group") != "O"
            ]
        rows.append(row)
    return rows


def predictions(fast: PreTrainedTokenizerFast, top_k: int) -> list[dict]:
    rows = []
    for text in MASKED[fast.mask_token]:
        ids = fast(text)["input_ids"]
        masks = []
        for position in [place for place, token in enumerate(ids) if token == fast.mask_token_id]:
            logits = np.array([logit(position, token) for token in range(len(fast))], np.float32)
            shares = np.exp(logits.astype(np.float64) - logits.max())
            shares /= shares.sum()
            best = np.argsort(-shares, kind="stable")[:top_k]
            masks.append([
                {"token": int(token), "token_str": fast.decode([int(token)]), "score": float(shares[token])}
                for token in best
            ])
        rows.append({"text": text, "vocabulary": len(fast), "top_k": top_k, "masks": masks})
    return rows


def pooling() -> dict:
    """sentence-transformers' Pooling and Normalize modules."""
    rows, tokens, hidden = 3, 4, 5
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], np.float64)
    numbers = np.array(
        [[[logit(row * tokens + token, index) - 5.0 for index in range(hidden)] for token in range(tokens)]
         for row in range(rows)]
    )
    cases = []
    for name in ("mean", "cls", "max"):
        if name == "mean":
            pooled = (numbers * mask[:, :, None]).sum(1) / np.clip(mask.sum(1), 1e-9, None)[:, None]
        elif name == "cls":
            pooled = numbers[:, 0]
        else:
            # -1e9 for padding there; a text without tokens cannot come, so its row is left out here.
            pooled = np.where(mask[:, :, None] == 0, -1e9, numbers).max(1)
            pooled[2] = 0.0
        for dimensions in (None, 3):
            kept = pooled[:, :dimensions]
            for normalize in (False, True):
                length = np.maximum(np.sqrt((kept**2).sum(1, keepdims=True)), 1e-12)
                cases.append({
                    "pooling": name,
                    "dimensions": dimensions,
                    "normalize": normalize,
                    "embedding": (kept / length if normalize else kept).tolist(),
                })
    return {"shape": [rows, tokens, hidden], "mask": mask.astype(int).tolist(), "cases": cases}


def write(name: str, content: dict) -> None:
    lines = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    # One case a line, so that a change can be read.
    (FOLDER / name).write_text(lines.replace("},{\"name\"", "},\n{\"name\"") + "\n", encoding="utf-8")


def main() -> None:
    made_with = {
        "tokenizers": tokenizers.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
    for family, (train, special) in FAMILIES.items():
        path = FOLDER / f"{family}_tokenizer.json"
        if "--train" in sys.argv[1:]:
            train().save(str(path), pretty=False)
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer.to_str()), **special)
        for text in TEXTS.values():
            assert fast(text)["input_ids"] == tokenizer.encode(text).ids, (family, text)
        write(f"{family}_answers.json", {
            "made_with": made_with,
            "texts": {name: [text, None] for name, text in TEXTS.items()} | PAIRS,
            "encodings": encodings(tokenizer),
            "labels": LABELS,
            "entities": entities(fast, np.random.RandomState(7)),
            "predictions": predictions(fast, 4),
        })
    write("pooling.json", {"made_with": {"numpy": np.__version__}, **pooling()})


if __name__ == "__main__":
    main()
