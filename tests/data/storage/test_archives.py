import gzip
import os
import tarfile

import pytest

from imagenet_jax.data.storage.archives import class_folders, members
from imagenet_jax.errors import UserError


def test_entries_of_a_tar_point_at_their_bytes(tmp_path, make_tar):
    contents = {f"{label}/{i}.jpg": os.urandom(100 + 700 * i) for label in ("cat", "dog") for i in range(3)}
    make_tar(tmp_path / "x.tar", contents)
    listing = class_folders(tmp_path / "x.tar")
    assert listing.classes == ["cat", "dog"]
    assert {entry.name: entry.read() for entry in listing.entries} == contents
    assert all(entry.label == entry.name.split("/")[0] for entry in listing.entries)


def test_members_of_a_tar_inside_a_tar_point_into_the_outer_file(tmp_path, make_tar):
    inner = make_tar(None, {"a.jpg": b"a" * 1000, "b.jpg": b"b" * 10})
    path = tmp_path / "outer.tar"
    make_tar(path, {"first": b"x" * 2000, "inner.tar": inner})
    outer = {member.name: member for member in members(path)}
    data = path.read_bytes()
    found = {m.name: data[m.offset : m.offset + m.size] for m in members(path, inside=outer["inner.tar"])}
    assert found == {"a.jpg": b"a" * 1000, "b.jpg": b"b" * 10}


def test_a_tree_and_a_tar_of_it_list_alike(tmp_path, make_tar):
    contents = {
        "cat/1.jpg": b"1",
        "cat/deep/2.jpg": b"22",
        "dog/ü.jpg": b"3",
        "dog/.hidden": b"",
        ".DS_Store": b"",
        "dog/Thumbs.db": b"",
    }
    for name, data in contents.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    make_tar(tmp_path / "flat.tar", contents)
    make_tar(tmp_path / "deep.tar", {f"./top/{name}": data for name, data in contents.items()})
    expected = [("cat/1.jpg", "cat", 1), ("cat/deep/2.jpg", "cat", 2), ("dog/ü.jpg", "dog", 1)]
    for path in ("tree", "flat.tar", "deep.tar"):
        listing = class_folders(tmp_path / path)
        assert sorted((entry.name, entry.label, entry.size) for entry in listing.entries) == expected, path
        assert listing.classes == ["cat", "dog"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.jpg", "cat/../../up.jpg"])
def test_a_name_that_leads_out_condemns_the_archive(tmp_path, make_tar, name):
    make_tar(tmp_path / "x.tar", {"cat/1.jpg": b"1", name: b"2"})
    with pytest.raises(UserError, match="leads out of its folder"):
        class_folders(tmp_path / "x.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_left_out_and_named(tmp_path, make_tar, kind):
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, "/etc/passwd"
    make_tar(tmp_path / "x.tar", {"cat/1.jpg": b"1", "cat/evil.jpg": info})
    listing = class_folders(tmp_path / "x.tar")
    assert [entry.name for entry in listing.entries] == ["cat/1.jpg"]
    assert [name for name, _ in listing.left_out] == ["cat/evil.jpg"]


def test_a_cut_anywhere_in_the_archive_is_noticed(tmp_path, make_tar):
    path = tmp_path / "x.tar"
    data = make_tar(path, {f"cat/{i}.jpg": bytes([i]) * 700 for i in range(4)})
    end = data.rindex(bytes([3]) * 700) + 700
    for size in range(0, end + 1, 256):  # among them: between two members, where tarfile sees nothing amiss
        path.write_bytes(data[:size])
        with pytest.raises(UserError, match=r"not a whole, uncompressed tar"):
            class_folders(path)


def test_a_damaged_header_in_the_middle_is_noticed(tmp_path, make_tar):
    path = tmp_path / "x.tar"
    data = bytearray(make_tar(path, {f"cat/{i}.jpg": b"x" for i in range(4)}))
    data[2 * 1024] ^= 255  # of the third member: each takes two blocks of 512
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged at byte 2,048"):
        class_folders(path)


def test_what_is_no_tar_gets_a_message_with_the_remedy(tmp_path, make_tar):
    path = tmp_path / "x.tar"
    path.write_bytes(b"<html>Please log in</html>" * 100)
    with pytest.raises(UserError, match=r"x\.tar is not a whole.*download it again"):
        class_folders(path)
    path.write_bytes(gzip.compress(make_tar(None, {"cat/1.jpg": b"1"})))
    with pytest.raises(UserError, match="It is compressed"):
        class_folders(path)
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        class_folders(tmp_path / "nowhere")


def test_an_empty_class_folder_is_named(tmp_path, make_tar):
    (tmp_path / "tree" / "cat").mkdir(parents=True)
    (tmp_path / "tree" / "cat" / "1.jpg").write_bytes(b"1")
    (tmp_path / "tree" / "unicorn").mkdir()
    folder = tarfile.TarInfo()
    folder.type = tarfile.DIRTYPE
    make_tar(tmp_path / "x.tar", {"cat/1.jpg": b"1", "unicorn": folder})
    for path in ("tree", "x.tar"):
        with pytest.raises(UserError, match=r"class folders without a file: unicorn"):
            class_folders(tmp_path / path)


def test_files_beside_the_class_folders_are_an_error(tmp_path, make_tar):
    make_tar(tmp_path / "x.tar", {"cat/1.jpg": b"1", "notes.txt": b"2"})
    with pytest.raises(UserError, match=r"notes\.txt"):
        class_folders(tmp_path / "x.tar")
    (tmp_path / "tree").mkdir()
    with pytest.raises(UserError, match="no class folders"):
        class_folders(tmp_path / "tree")
    (tmp_path / "tree" / "photo.jpg").write_bytes(b"1")
    with pytest.raises(UserError, match=r"photo\.jpg"):
        class_folders(tmp_path / "tree")
