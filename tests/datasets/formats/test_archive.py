import gzip
import io
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from app.core.errors import GraftError, Invalid, TooLarge, UnsupportedMedia
from app.datasets.formats.archive import ArchiveLimits, Entry, Listing, detect_format, members, names
from tests.support.images import folder_tar, folder_tar_zst, folder_zip

LIMITS = ArchiveLimits()
FILES = {"ants/1.jpg": b"one", "ants/2.jpg": b"two" * 400, "bees/3.jpg": b""}
Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(data: bytes) -> Path:
        path = tmp_path / "upload"
        path.write_bytes(data)
        return path

    return write


def pack_zip(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content, compress_type=method)
    return buffer.getvalue()


def pack_tar(*entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), "target"
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def raw_header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def refused(path: Path, limits: ArchiveLimits = LIMITS, *, read: bool = False) -> GraftError:
    with pytest.raises(Invalid) as caught:
        read_all(path, limits) if read else names(path, limits)
    return caught.value


def read_all(path: Path, limits: ArchiveLimits = LIMITS) -> None:
    for _, read in members(path, limits):
        read()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (folder_zip(FILES), "zip"),
        (folder_tar(FILES, compress=False), "tar"),
        (folder_tar(FILES), "tar.gz"),
        (folder_tar_zst(FILES), "tar.zst"),
        (pack_zip(*FILES.items(), method=zipfile.ZIP_STORED), "zip"),
        (pack_tar(*FILES.items(), tar_format=tarfile.GNU_FORMAT), "tar"),
        (pack_tar(*FILES.items(), tar_format=tarfile.USTAR_FORMAT), "tar"),
    ],
)
def test_reads_each_format_member_by_member(write: Write, data: bytes, expected: str) -> None:
    path = write(data)
    assert detect_format(path) == expected
    assert names(path, LIMITS) == [Entry(name, len(content)) for name, content in FILES.items()]
    assert {entry.name: read() for entry, read in members(path, LIMITS)} == FILES


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_entries_of_any_size(write: Write, method: int) -> None:
    rng = random.Random(0)
    sizes = (0, 1, 2**16 - 1, 2**16, 2**16 + 1, 300_000)
    files = {f"a/{size}.jpg": rng.randbytes(size) for size in sizes} | {f"b/{size}.jpg": bytes(size) for size in sizes}
    path = write(pack_zip(*files.items(), method=method))
    assert {entry.name: read() for entry, read in members(path, LIMITS)} == files


def test_a_zip_whose_directory_has_another_order(write: Write) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
        archive.filelist.reverse()
    found = [(entry.name, read()) for entry, read in members(write(buffer.getvalue()), LIMITS)]
    assert found == [*reversed(FILES.items())]


@pytest.mark.parametrize("pack", [folder_zip, folder_tar, folder_tar_zst])
def test_the_second_pass_finds_what_the_first_did(write: Write, pack: Callable[..., bytes]) -> None:
    path, listing = write(pack(FILES)), Listing()
    assert [entry.name for entry, _ in members(path, LIMITS, listing)] == [*FILES]
    assert {entry.name: read() for entry, read in members(path, LIMITS, listing)} == FILES


def test_the_second_pass_reads_no_directory(write: Write) -> None:
    data, listing = folder_zip(FILES), Listing()
    names_found = [entry.name for entry, _ in members(write(data), LIMITS, listing)]
    path = write(data.replace(b"PK\x01\x02", b"gone"))
    assert [entry.name for entry, read in members(path, LIMITS, listing) if read() == FILES[entry.name]] == names_found
    assert refused(path).code == "damaged_archive"


@pytest.mark.parametrize("pack", [folder_zip, folder_tar, folder_tar_zst])
def test_members_that_are_not_read_are_skipped(write: Write, pack: Callable[..., bytes]) -> None:
    path = write(pack(FILES))
    assert [read() for entry, read in members(path, LIMITS) if entry.name.startswith("ants/2")] == [b"two" * 400]


def test_a_tar_member_is_readable_only_while_current(write: Write) -> None:
    reads = [read for _, read in members(write(folder_tar(FILES)), LIMITS)]
    with pytest.raises(RuntimeError, match="current member"):
        reads[0]()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"Rar!\x1a\x07\x01\x00", "RAR"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "7z"),
        (b"\xff\xd8\xff\xe0", "JPEG image"),
        (b"<html>" * 200, "HTML"),
        (b"\x01\x02\x03", "01 02 03"),
        (gzip.compress(b"just text", mtime=0), "no tar inside"),
        (zstandard.compress(b"just text"), "no tar inside"),
    ],
)
def test_what_is_no_archive_is_named(write: Write, data: bytes, found: str) -> None:
    with pytest.raises(UnsupportedMedia, match=r"zip, tar, tar\.gz or tar\.zst") as caught:
        names(write(data), LIMITS)
    assert caught.value.code == "not_an_archive"
    assert found in caught.value.detail


UNSAFE = [
    "../escape.jpg",
    "ants/../../escape.jpg",
    "/etc/passwd.jpg",
    "C:/windows.jpg",
    "c:evil.jpg",
    "ants\\..\\evil.jpg",
    "ants/\x1b[2J.jpg",
    "x" * 1100 + ".jpg",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names_refuse_the_archive(write: Write, name: str) -> None:
    for data in (pack_zip(("ok/1.jpg", b"1"), (name, b"2")), pack_tar(("ok/1.jpg", b"1"), (name, b"2"))):
        error = refused(write(data))
        assert error.code == "unsafe_name"
        assert error.errors[0].field.startswith(name[:1] if name.isprintable() else "ants/\\x1b")
        assert "relative names" in error.errors[0].message


def test_a_folder_entry_may_not_escape_either(write: Write) -> None:
    assert refused(write(pack_zip(("../", b""), ("ok.jpg", b"1")))).code == "unsafe_name"


def test_a_name_with_nul_in_a_zip(write: Write) -> None:
    data = pack_zip(("ants/1.jpgX.exe", b"1")).replace(b"1.jpgX.exe", b"1.jpg\0.exe")
    assert refused(write(data)).code == "unsafe_name"


def test_a_tar_name_that_is_not_utf8(write: Write) -> None:
    error = refused(write(raw_header(b"ants/\xe9t\xe9.jpg", 0) + bytes(1024)))
    assert error.code == "unsafe_name"
    assert "UTF-8" in error.detail
    error.detail.encode()  # fit to be sent


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S", b"V"]
)
def test_a_tar_may_hold_only_files_and_folders(write: Write, kind: bytes) -> None:
    error = refused(write(pack_tar(("ants/1.jpg", b""), kind=kind)))
    assert error.code == "not_a_plain_file"
    assert error.errors[0].field == "ants/1.jpg"


def test_a_sparse_file_by_pax_header(write: Write) -> None:
    record = b"22 GNU.sparse.major=1\n"
    data = raw_header(b"pax", len(record), b"x") + record.ljust(512, b"\0") + raw_header(b"a/1.jpg", 0) + bytes(1024)
    assert refused(write(data)).code == "not_a_plain_file"


def test_a_zip_may_not_hold_links(write: Write) -> None:
    link = zipfile.ZipInfo("ants/link.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    assert refused(write(pack_zip((link, b"/etc/passwd")))).code == "not_a_plain_file"


def test_encrypted_entries(write: Write) -> None:
    data = bytearray(pack_zip(("ants/1.jpg", b"secret")))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    error = refused(write(bytes(data)))
    assert error.code == "encrypted_archive"
    assert "password" in error.detail


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_cannot_be_bounded(write: Write, method: int) -> None:
    assert refused(write(pack_zip(("ants/1.jpg", b"1"), method=method))).code == "unsupported_compression"


def test_entries_that_share_their_bytes(write: Write) -> None:
    """Two records of the directory point at one file: the kernel of a bomb with no nesting."""
    data = pack_zip(("a/1.jpg", bytes(100_000)), ("a/2.jpg", b"2"))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    overlapping = bytearray(data)
    struct.pack_into("<I", overlapping, second + 42, 0)
    assert refused(write(bytes(overlapping))).code == "overlapping_entries"


def test_an_entry_that_claims_the_directory(write: Write) -> None:
    data = bytearray(pack_zip(("a/1.jpg", b"1")))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 20, 50)
    assert refused(write(bytes(data))).code == "overlapping_entries"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ants/a.jpg", "ants/a.jpg"),
        ("ants/a.jpg", "Ants/A.JPG"),
        ("ants/\u00e9.jpg", "ants/e\u0301.jpg"),
        ("ants/a.jpg", "./ants//a.jpg"),
        ("ants/stra\u00dfe.jpg", "ants/STRASSE.jpg"),
    ],
)
def test_duplicate_names(write: Write, first: str, second: str) -> None:
    with warnings.catch_warnings(action="ignore"):  # zipfile warns while packing a duplicate
        zipped = pack_zip((first, b"1"), (second, b"2"))
    for data in (zipped, pack_tar((first, b"1"), (second, b"2"))):
        assert refused(write(data)).code == "duplicate_name"


def test_names_are_normalised(write: Write) -> None:
    for data in (pack_zip(("./e\u0301//1.jpg", b"1")), pack_tar(("./e\u0301//1.jpg", b"1"))):
        assert [entry.name for entry in names(write(data), LIMITS)] == ["\u00e9/1.jpg"]


def test_utf8_in_a_zip_without_the_flag_for_it(write: Write) -> None:
    data = bytearray(pack_zip(("k\u00e4fer/1.jpg", b"1")))
    data[7] &= ~0x08
    data[data.index(b"PK\x01\x02") + 9] &= ~0x08
    path = write(bytes(data))
    assert [(entry.name, read()) for entry, read in members(path, LIMITS)] == [("k\u00e4fer/1.jpg", b"1")]


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_in_tars(write: Write, tar_format: int) -> None:
    name = "käfer/" + "x" * 200 + ".jpg"
    path = write(pack_tar((name, b"content"), ("b/2.jpg", b"2"), tar_format=tar_format))
    assert [(entry.name, read()) for entry, read in members(path, LIMITS)] == [(name, b"content"), ("b/2.jpg", b"2")]


def test_the_prefix_of_ustar_names(write: Write) -> None:
    name = "p" * 90 + "/" + "n" * 90 + ".jpg"
    assert names(write(pack_tar((name, b"1"), tar_format=tarfile.USTAR_FORMAT)), LIMITS) == [Entry(name, 1)]


def test_folders_are_left_out(write: Write) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("ants", "bees"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("ants/1.jpg"))
    assert names(write(buffer.getvalue()), LIMITS) == [Entry("ants/1.jpg", 0)]
    assert names(write(pack_zip(("ants/", b""), ("ants/1.jpg", b""))), LIMITS) == [Entry("ants/1.jpg", 0)]


@pytest.mark.parametrize("data", [pack_zip(), pack_zip(("ants/", b"")), pack_tar(), gzip.compress(pack_tar(), mtime=0)])
def test_empty_archives(write: Write, data: bytes) -> None:
    assert refused(write(data)).code == "empty_archive"


@pytest.mark.parametrize(
    "pack", [lambda f: pack_zip(*f.items()), lambda f: pack_tar(*f.items()), folder_tar, folder_tar_zst]
)
def test_every_truncation_is_damage(write: Write, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    rng = random.Random(0)
    data = pack({f"a/{i}.jpg": rng.randbytes(700) for i in range(3)})
    end = data.rstrip(b"\0").__len__()  # a tar's padding may go
    for cut in range(4, end - 1, 37):
        path = write(data[:cut])
        with pytest.raises(GraftError) as caught:
            read_all(path)
        # Zstandard gives nothing of a block before all of it is there.
        early = cut < 512 or "Zstandard" in caught.value.detail
        assert caught.value.code == "damaged_archive" or (early and caught.value.code == "not_an_archive")


@pytest.mark.parametrize(
    "pack", [lambda f: pack_zip(*f.items()), lambda f: pack_tar(*f.items()), folder_tar, folder_tar_zst]
)
def test_random_damage_never_escapes_as_another_error(write: Write, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    rng = random.Random(1)
    data = pack({f"a/{i}.jpg": rng.randbytes(300) for i in range(3)})
    codes = []
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 12)):
            broken[rng.randrange(len(broken))] = rng.choice([0, 0xFF, rng.randrange(256)])
        try:
            read_all(write(bytes(broken)))
        except GraftError as error:
            error.detail.encode()  # fit to be sent
            codes.append(error.code)
    assert len(codes) > 30
    assert "damaged_archive" in codes
    assert "internal" not in codes


def test_a_wrong_checksum_in_a_zip(write: Write) -> None:
    data = bytearray(pack_zip(("ants/1.jpg", b"content"), method=zipfile.ZIP_STORED))
    data[data.index(b"content")] ^= 1
    error = refused(write(bytes(data)), read=True)
    assert error.code == "damaged_archive"
    assert error.errors[0].field == "ants/1.jpg"


def test_compressed_data_that_end_early(write: Write) -> None:
    data = bytearray(pack_zip(("ants/1.jpg", b"content" * 9)))
    at = data.index(b"ants/1.jpg") + len("ants/1.jpg")
    data[at : at + 5] = b"\x01\x00\x00\xff\xff"  # RFC 1951, 3.2.4: a last block of nothing
    error = refused(write(bytes(data)), read=True)
    assert error.code == "damaged_archive"
    assert "there are 0" in error.detail


def test_an_entry_that_has_two_names(write: Write) -> None:
    """One in the directory, one before its data: which one is meant depends on who reads it."""
    data = pack_zip(("ants/1.jpg", b"content"))
    error = refused(write(data.replace(b"ants/1.jpg", b"bees/1.jpg", 1)))
    assert error.code == "damaged_archive"
    assert "ants/1.jpg is called bees/1.jpg before its data" in error.detail


def test_an_entry_that_is_a_patch(write: Write) -> None:
    data = bytearray(pack_zip(("ants/1.jpg", b"content")))
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 8, 0x20)
    assert refused(write(bytes(data))).code == "unsupported_compression"


@pytest.mark.parametrize("pack", [folder_zip, folder_tar, folder_tar_zst])
def test_one_large_file_spares_the_others(write: Write, pack: Callable[..., bytes]) -> None:
    path = write(pack({"a/big.jpg": bytes(5000), "a/ok.jpg": b"ok"}))
    outcome: dict[str, bytes | str] = {}
    for entry, read in members(path, ArchiveLimits(max_file_bytes=4096)):
        try:
            outcome[entry.name] = read()
        except TooLarge as error:
            outcome[error.errors[0].field] = error.code
    assert outcome == {"a/big.jpg": "file_too_large", "a/ok.jpg": b"ok"}


def test_a_small_declared_size_does_not_hide_a_large_zip_entry(write: Write) -> None:
    """The limit counts what comes out: here nothing beyond the declared 10 bytes ever does."""
    data = bytearray(pack_zip(("ants/1.jpg", bytes(5000))))
    for at in (22, data.index(b"PK\x01\x02") + 24):
        struct.pack_into("<I", data, at, 10)
    ((entry, read),) = members(write(bytes(data)), ArchiveLimits(max_file_bytes=100))
    assert entry.size == 10
    with pytest.raises(Invalid, match="damaged"):
        read()


@pytest.mark.parametrize("pack", [folder_zip, folder_tar, folder_tar_zst])
def test_the_total_is_bounded(write: Write, pack: Callable[..., bytes]) -> None:
    path = write(pack({f"a/{i}.jpg": bytes(4000) for i in range(5)}))
    assert refused(path, ArchiveLimits(max_total_bytes=10_000), read=True).code == "archive_too_large"


@pytest.mark.parametrize("pack", [folder_zip, folder_tar, folder_tar_zst])
def test_the_ratio_is_bounded(write: Write, pack: Callable[..., bytes]) -> None:
    path = write(pack({f"a/{i}.jpg": bytes(9 << 20) for i in range(2)}))
    assert refused(path, read=True).code == "compression_ratio"


def test_a_bomb_in_a_tar_gz_is_found_without_reading_its_members(write: Write) -> None:
    path = write(gzip.compress(raw_header(b"a/1.jpg", 20 << 20) + bytes(20 << 20)))
    assert refused(path).code == "compression_ratio"


def test_a_zstandard_frame_may_not_ask_for_more_memory_than_it_gets(write: Write) -> None:
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    writer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    error = refused(write(writer.compress(folder_tar(FILES, compress=False)) + writer.flush()))
    assert error.code == "damaged_archive"
    assert "without --long" in error.detail


def test_zstandard_frames_follow_each_other_and_may_be_skippable(write: Write) -> None:
    """What pzstd writes: a frame of its own notes first, and one for each thread's share."""
    tar = folder_tar(FILES, compress=False)
    parts = [zstandard.compress(tar[at : at + 700]) for at in range(0, len(tar), 700)]
    path = write(b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note" + b"".join(parts))
    assert {entry.name: read() for entry, read in members(path, LIMITS)} == FILES


def test_a_few_plain_images_may_compress_well(write: Write) -> None:
    assert len(names(write(folder_tar({"a/1.bmp": bytes(1 << 20)})), LIMITS)) == 1


@pytest.mark.parametrize("pack", [folder_zip, folder_tar, folder_tar_zst])
def test_the_number_of_entries_is_bounded(write: Write, pack: Callable[..., bytes]) -> None:
    path = write(pack({f"a/{i}.jpg": b"" for i in range(11)}))
    assert refused(path, ArchiveLimits(max_entries=10)).code == "too_many_entries"
    assert len(names(path, ArchiveLimits(max_entries=11))) == 11


def test_a_directory_of_many_records_is_refused_before_it_is_parsed(write: Write) -> None:
    """The count at the end of the zip says 1, as a hostile one may; zipfile goes by the bytes."""
    data = bytearray(pack_zip(*((f"{i}.jpg", b"") for i in range(200))))
    struct.pack_into("<HH", data, len(data) - 14, 1, 1)
    assert refused(write(bytes(data)), ArchiveLimits(max_entries=100)).code == "too_many_entries"


def test_an_extended_header_of_absurd_size(write: Write) -> None:
    data = raw_header(b"pax", 8 << 20, b"x") + b"9" * (8 << 20) + raw_header(b"a/1.jpg", 0) + bytes(1024)
    assert refused(write(data)).code == "damaged_archive"


def test_a_chain_of_extended_headers(write: Write) -> None:
    data = raw_header(b"pax", 0, b"x") * 5000 + raw_header(b"a/1.jpg", 0) + bytes(1024)
    assert refused(write(data)).code == "damaged_archive"


@pytest.mark.parametrize("record", [b"x", b"5 a=", b"99 path=a\n", b"0 path=a\n", b"9 path\n..", b"-1 path=a\n"])
def test_malformed_pax_records(write: Write, record: bytes) -> None:
    data = raw_header(b"pax", len(record), b"x") + record.ljust(512, b"\0") + raw_header(b"a/1.jpg", 0) + bytes(1024)
    assert refused(write(data)).code == "damaged_archive"


def test_a_tar_with_a_negative_size(write: Write) -> None:
    header = bytearray(raw_header(b"a/1.jpg", 0))
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert refused(write(raw_header(b"a/0.jpg", 0) + bytes(header) + bytes(1024))).code == "damaged_archive"
