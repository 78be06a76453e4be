"""The command line: `python -m outhaul convert SOURCE --to MODELS`.

One line of JSON on standard output says what was written; everything else goes to standard error. The exit code is 0 where
a model was written, 1 where it was not, and 2 where the arguments make no sense.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys

from outhaul.errors import ConversionError


def main(arguments=None):
    """Runs the command line and returns the exit code."""
    options = _parser().parse_args(arguments)
    with _json_alone() as out:
        try:
            written = _convert(options)
        except ConversionError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(json.dumps(dataclasses.asdict(written)), file=out, flush=True)
    return 0


@contextlib.contextmanager
def _json_alone():
    """Keeps what libraries print, in Python or in C, away from standard output."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as out, contextlib.redirect_stdout(sys.stderr):
        os.dup2(2, 1)
        try:
            yield out
        finally:
            out.flush()
            os.dup2(out.fileno(), 1)


def _convert(options):
    # Only now: --help does not wait for the libraries.
    from outhaul import conversion, sources, tables

    source = sources.find(options.source, options.kind)
    model, kind = sources.load(source, options.trust)
    sample = None
    if options.sample is not None:
        sample = tables.read_sample(options.sample)
    found = conversion.kind_of(model)
    if kind in ("auto", found):
        kind = found
    elif kind != "sklearn":
        raise ConversionError(f"{source.file} holds a model of {found}, not of {kind}")
    return conversion.convert(
        model,
        sample,
        options.to,
        name=options.name or source.name,
        version=options.version,
        kind=kind,
        force=options.force,
        tolerance=options.tolerance,
        allow_different=options.allow_different,
        features=options.features,
        per_column=options.per_column,
        missing=options.missing,
    )


def _parser():
    parser = argparse.ArgumentParser(prog="python -m outhaul", description="Turns models of other libraries into ONNX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    convert = commands.add_parser(
        "convert",
        help="convert a scikit-learn, XGBoost or LightGBM model",
        description="Converts a model, checks that the result answers like the original, and writes it as "
        "MODELS/NAME/VERSION/model.onnx with labels.txt and a reference sample. Nothing is written where it does not.",
    )
    convert.add_argument("source", metavar="SOURCE", help="the model's file, or a folder of MLflow or MLServer")
    convert.add_argument("--to", required=True, metavar="MODELS", help="the folder of models that it goes into")
    convert.add_argument("--name", help="the model's name [default: the source's]")
    convert.add_argument("--version", type=int, metavar="NUMBER", help="its version [default: one above the highest]")
    convert.add_argument("--kind", default="auto", choices=["auto", "sklearn", "xgboost", "lightgbm"], help="the library")
    convert.add_argument("--sample", metavar="FILE", help=".csv, .npy or .json: rows to check on [default: generated]")
    convert.add_argument("--features", type=_positive, metavar="NUMBER", help="how many, where the model does not tell")
    convert.add_argument("--tolerance", type=_tolerance, default=1e-4, metavar="NUMBER", help="[default: 1e-4]")
    convert.add_argument("--allow-different", type=_count, default=0, metavar="ROWS", help="rows that may differ [default: 0]")
    convert.add_argument(
        "--per-column", action=argparse.BooleanOptionalAction, default=None,
        help="one input for each column, or one matrix [default: as the model needs]",
    )  # fmt: skip
    convert.add_argument("--no-missing", dest="missing", action="store_false", help="the model never gets missing values")
    convert.add_argument("--force", action="store_true", help="replace the version where it is there")
    convert.add_argument("--trust", action="store_true", help="load a pickle, which runs the code that it holds")
    return parser


def _positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _count(text):
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def _tolerance(text):
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError("must be a number from 0 up")
    return number


if __name__ == "__main__":
    sys.exit(main())
