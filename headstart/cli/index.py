"""`headstart index`: list where the examples of a data set lie, in one Parquet file."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.display import Verbatim
from headstart.cli.opening import add_json_flag
from headstart.cli.parser import Parser
from headstart.cli.printing import print_json, print_line, print_table, tell_left_out

if TYPE_CHECKING:
    from headstart.modalities.indexing import Indexed

FEW = 8  # labels whose rows are printed


def arguments(argv: Sequence[str] = ()) -> Parser:
    parser = Parser("index")
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder of class folders, of tar shards, of Parquet tables with the bytes of "
        "pictures or with texts, or one that datasets saved; a .tar or .parquet file; a folder of "
        "s3:// or gs://; or a .txt file of addresses (https://…), one a line",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the index, a .parquet file"
    )
    parser.add_argument(
        "--column", metavar="NAME", help="of a table: the column of the pictures or texts"
    )
    parser.add_argument("--label", metavar="NAME", help="of a table: the column of the label")
    parser.add_argument(
        "--unlabelled",
        action="store_true",
        help="list examples without a label too, to predict them",
    )
    add_json_flag(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    from headstart.evaluation.commands import train_command
    from headstart.modalities.indexing import IndexRequest, write_index

    request = IndexRequest(
        args.data, None, args.column or "", args.label or "", labelled=not args.unlabelled
    )
    found = write_index(request, args.out)
    if args.json:
        print_json(_plain(found))
    else:
        print_table(_table(found))
        if found.labels:
            print()
            print_line(train_command(str(args.out)))
    return tell_left_out(found.left_out)


def _table(found: "Indexed") -> list[tuple[str, str]]:
    labels = [f"{name} {n:,}" for name, n in found.labels.items()]
    more = f", and {len(labels) - FEW:,} more" if len(labels) > FEW else ""
    parts = ", ".join(f"{name} {n:,}" for name, n in found.parts.items())
    passed = sum(item.expected for item in found.left_out)
    return [
        (found.noun, f"{found.rows:,}"),
        *([("labels", Verbatim(", ".join(labels[:FEW]) + more))] if labels else []),
        *([("parts", parts)] if parts else []),
        *([("passed over", f"{passed:,} (--json names them)")] if passed else []),
        ("index", f"{found.path}, {found.path.stat().st_size / 1e6:.1f} MB"),
    ]


def _plain(found: "Indexed") -> dict[str, object]:
    return {
        "index": str(found.path),
        "rows": found.rows,
        "kind": found.kind,
        "labels": found.labels,
        "parts": found.parts,
        "left_out": [item.to_plain() for item in found.left_out],
    }
