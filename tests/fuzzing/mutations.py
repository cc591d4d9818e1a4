"""Ways to spoil a file: blindly, along its structure, and with checksums that hold again."""

import io
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence

import numpy as np

NUMBERS = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80")
WORDS = tuple(
    word.encode()
    for word in (
        *("null", "true", "-1", "0", "1e999", "NaN", "-Infinity", '""', "[]", "{}", "[[]]"),
        *("'", '"', "9" * 5000, "1" * 30, "\u2028", "\ud7ff", "../../etc", "*a", "&a", "!!python"),
        *("{" * 3000, "[" * 3000, "- " * 2000, "\\ud800", "x: ", ": x", "<<: *a", "\x00", "~"),
    )
)
Mutation = Callable[[bytearray, np.random.Generator], None]


def flip_bits(content: bytearray, random: np.random.Generator) -> None:
    for place in random.integers(0, len(content), random.integers(1, 20)):
        content[place] ^= 1 << int(random.integers(8))


def set_numbers(content: bytearray, random: np.random.Generator) -> None:
    for place in random.integers(0, len(content), random.integers(1, 6)):
        value = NUMBERS[random.integers(len(NUMBERS))]
        content[place : place + len(value)] = value


def truncate(content: bytearray, random: np.random.Generator) -> None:
    del content[random.integers(0, len(content)) :]


def cut_out(content: bytearray, random: np.random.Generator) -> None:
    start = int(random.integers(0, len(content)))
    del content[start : start + int(random.integers(1, 64))]


def repeat(content: bytearray, random: np.random.Generator) -> None:
    start = int(random.integers(0, len(content)))
    part = bytes(content[start : start + int(random.integers(1, 256))])
    content[start:start] = part * int(random.integers(1, 4))


def insert_word(content: bytearray, random: np.random.Generator) -> None:
    place = int(random.integers(0, len(content) + 1))
    content[place:place] = WORDS[random.integers(len(WORDS))]


def replace_token(content: bytearray, random: np.random.Generator) -> None:
    """Put another word in the place of what stands between two of JSON's or YAML's marks."""
    marks = [place for place, byte in enumerate(content) if byte in b' ,:[]{}\n"']
    if len(marks) < 2:
        return
    which = int(random.integers(len(marks) - 1))
    content[marks[which] + 1 : marks[which + 1]] = WORDS[random.integers(len(WORDS))]


BLIND: Sequence[Mutation] = (flip_bits, set_numbers, truncate, cut_out, repeat, insert_word)
TEXT: Sequence[Mutation] = (*BLIND, replace_token, replace_token, replace_token)


def mutated(content: bytes, random: np.random.Generator, ways: Sequence[Mutation]) -> bytes:
    """Return a file with one to four faults."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        if changed:
            ways[random.integers(len(ways))](changed, random)
    return bytes(changed)


def mutated_archive(content: bytes, random: np.random.Generator) -> bytes:
    """Return an archive with faults in its members and checksums that hold, or faults anywhere."""
    if random.random() < 0.3:
        return mutated(content, random, BLIND)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        names = old.namelist()
        chosen = names[random.integers(len(names))]
        for name in names:
            member = old.read(name)
            if name == chosen:
                head, body = member[:160], member[160:]
                ways = TEXT if random.random() < 0.5 else BLIND
                part = mutated(head, random, ways) if random.random() < 0.7 else head
                member = part + (mutated(body, random, BLIND) if part == head else body)
            how = zipfile.ZIP_DEFLATED if random.random() < 0.3 else zipfile.ZIP_STORED
            for _ in range(2 if random.random() < 0.02 else 1):
                with warnings.catch_warnings(action="ignore"):  # of a name that occurs twice
                    new.writestr(zipfile.ZipInfo(name), member, how)
    return packed.getvalue()


def checksum(content: bytes) -> str:
    """Return a short name of a content."""
    return f"{zlib.crc32(content):08x}"
