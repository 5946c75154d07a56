"""Freely licensed music out of packages: a real repository, read by the real apt and dpkg."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from streaming.errors import SettingsError
from tests import ROOT
from training import collect, collect_free
from training.collect_free import LIST, read_packages
from training.licences import CopyrightFile, Statement, Terms, terms_of
from training.works import LIST_NAME, WorkList, credits_of

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("apt-get", "apt-cache", "dpkg-deb")),
    reason="no apt and dpkg here",
)

FORMAT = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
MIXED = (
    FORMAT
    + """
Files: *
Copyright: 2009, The Game's Authors
License: GPL-2+

Files: ./data/music/free*.ogg
Copyright: 2010, Anna Composer <anna@example.org>
           2011, Otto Player
License: GPL-3+ or CC-BY-SA-3.0
Comment: Written for this game.

License: GPL-2+
 See /usr/share/common-licenses/GPL-2.
"""
)


def song(path: Path, seconds: float = 12.0, title: str = "", hz: float = 440.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * 32_000)) / 32_000
    with sf.SoundFile(path, "w", 32_000, 1) as file:
        if title:
            file.title, file.artist = title, "Anna"
        file.write(0.3 * np.sin(2 * np.pi * hz * time))
    return path


class Archive:
    """A repository of packages in a folder, and an apt that knows no other."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.debs = folder / "repository"
        self.debs.mkdir()
        self.rows: list[str] = []
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(f"deb [trusted=yes] file:{self.debs} ./\n")
        settings = {
            "Dir::State": "state",
            "Dir::State::status": "status",
            "Dir::Cache": "cache",
            "Dir::Etc::SourceList": "sources.list",
        }
        lines = [f'{name} "{folder / value}";' for name, value in settings.items()]
        lines += [f'Dir::Etc::{name} "/dev/null";' for name in ("SourceParts", "Parts", "Main")]
        (folder / "apt.conf").write_text("\n".join([*lines, 'APT::Sandbox::User "root";']))
        monkeypatch.setenv("APT_CONFIG", str(folder / "apt.conf"))
        self.list = folder / "list.toml"

    def package(
        self, name: str, version: str, files: dict[str, Path], copyright_text: str | None = MIXED
    ) -> Path:
        """Build a package and have apt know it."""
        tree = self.folder / "trees" / f"{name}-{version}"
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
        control += "Maintainer: Nobody <nobody@example.org>\nDescription: music\n"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN" / "control").write_text(control)
        for path, source in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tree / path)
        if copyright_text is not None:
            (tree / "usr/share/doc" / name).mkdir(parents=True)
            (tree / "usr/share/doc" / name / "copyright").write_text(copyright_text)
        deb = self.debs / f"{name}_{version}_all.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(deb)]
        subprocess.run(command, check=True, capture_output=True)
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        row = f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
        self.rows.append(row)
        (self.debs / "Packages").write_text("\n".join(self.rows))
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        return deb

    def entry(self, name: str, version: str = "1.0-1", **more: str) -> None:
        """Name a package in the list, with music at usr/share/NAME/music/."""
        fields = {"root": f'"usr/share/{name}/"', "files": '["music/*.ogg"]', "source": '"data/"'}
        lines = ["[[package]]", f'name = "{name}"', f'version = "{version}"']
        lines += [f"{key} = {value}" for key, value in (fields | more).items()]
        with self.list.open("a") as file:
            file.write("\n".join(lines) + "\n")

    def collect(self, out: Path, *arguments: str) -> int:
        return collect_free.main([f"--out={out}", f"--list={self.list}", *arguments])


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    (tmp_path / "apt").mkdir()
    return Archive(tmp_path / "apt", monkeypatch)


@pytest.fixture
def game(archive: Archive, tmp_path: Path) -> Archive:
    """An archive with one package of three recordings: two of them free, one GPL."""
    files = {
        "usr/share/game/music/free-1.ogg": song(tmp_path / "1.ogg", title="First Song"),
        "usr/share/game/music/free-2.ogg": song(tmp_path / "2.ogg", seconds=60),
        "usr/share/game/music/other.ogg": song(tmp_path / "3.ogg"),
        "usr/share/game/sounds/door.ogg": song(tmp_path / "4.ogg"),
    }
    archive.package("game", "1.0-1", files)
    archive.entry("game")
    return archive


def works(out: Path) -> dict[str, str]:
    """Licences by the file name of each recording."""
    return {Path(work.source).name: work.license for work in WorkList.read(out / LIST_NAME).works}


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("collect_free: ")
    return line


def test_recordings_are_cut_out_and_listed_with_licence_and_authors(
    game: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert game.collect(out, "--minutes=0.7") == 0
    first, second = WorkList.read(out / LIST_NAME).works
    assert (first.package, first.version) == ("game", "1.0-1")
    assert first.source == "usr/share/game/music/free-1.ogg"
    assert first.sha256 == hashlib.sha256((tmp_path / "1.ogg").read_bytes()).hexdigest()
    assert first.license == "GPL-3+ or CC-BY-SA-3.0"
    assert first.copyright == "2010, Anna Composer <anna@example.org>; 2011, Otto Player"
    assert first.comment == "Written for this game."
    assert (first.title, first.artist) == ("First Song", "Anna")
    assert first.seconds == pytest.approx(12, abs=0.01)  # all of it
    assert second.seconds == pytest.approx(30, abs=0.01)  # what the first leaves of 42 s
    assert second.start_s == pytest.approx(15, abs=0.01)  # the middle
    for work in (first, second):
        info = sf.info(out / work.file)
        assert (info.format, info.samplerate, info.channels) == ("FLAC", 48_000, 2)
        assert info.frames == round(work.seconds * 48_000)
    assert (out / "copyright" / "game").read_text() == MIXED
    assert "2 recordings of 1 packages" in capsys.readouterr().out


def test_the_folder_is_music_to_train_on(game: Archive, tmp_path: Path) -> None:
    assert game.collect(tmp_path / "out", "--format=opus") == 0
    collect.collect(tmp_path / "out", tmp_path / "music", tmp_path / "held", 1.0)
    assert len([*(tmp_path / "music").iterdir(), *(tmp_path / "held").iterdir()]) == 2


def test_music_under_the_gpl_alone_is_taken_on_demand(game: Archive, tmp_path: Path) -> None:
    assert game.collect(tmp_path / "default") == 0
    assert set(works(tmp_path / "default")) == {"free-1.ogg", "free-2.ogg"}
    assert game.collect(tmp_path / "all", "--gpl") == 0
    assert works(tmp_path / "all")["other.ogg"] == "GPL-2+"


def test_another_version_is_taken_if_that_of_the_list_is_gone(
    game: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    game.list.unlink()
    game.entry("game", version="0.9-1")
    assert game.collect(tmp_path / "out") == 0
    (message,) = [record.getMessage() for record in caplog.records]
    assert "no longer have version 0.9-1 of the list; took 1.0-1 instead" in message
    assert {work.version for work in WorkList.read(tmp_path / "out" / LIST_NAME).works} == {"1.0-1"}


def test_the_version_of_the_list_is_taken_though_there_is_a_newer_one(
    game: Archive, tmp_path: Path
) -> None:
    game.package("game", "2.0-1", {"usr/share/game/music/free-9.ogg": tmp_path / "1.ogg"})
    assert game.collect(tmp_path / "out") == 0
    assert set(works(tmp_path / "out")) == {"free-1.ogg", "free-2.ogg"}


def test_one_bad_package_does_not_end_the_rest(
    game: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys
) -> None:
    text = tmp_path / "text.ogg"
    text.write_text("no music")
    broken = {"usr/share/broken/music/free-1.ogg": text}
    broken |= {"usr/share/broken/music/free-2.ogg": tmp_path / "1.ogg"}
    game.package("broken", "1.0-1", broken)
    game.package("noise", "1.0-1", {"usr/share/noise/music/free.ogg": text})
    game.package("silent", "1.0-1", {"usr/share/silent/readme": text})
    game.package("bare", "1.0-1", {"usr/share/bare/music/free.ogg": tmp_path / "1.ogg"}, None)
    damaged = game.package("damaged", "1.0-1", {"usr/share/damaged/music/free.ogg": text})
    debs = tmp_path / "debs"
    debs.mkdir()
    (debs / damaged.name).write_bytes(damaged.read_bytes()[:3000])
    changed = game.package("changed", "1.0-1", {"usr/share/changed/music/free.ogg": text})
    changed.write_bytes(changed.read_bytes().replace(b"no music", b"NO MUSIC"))
    for name in ("absent", "silent", "bare", "damaged", "changed", "noise", "broken"):
        game.entry(name)
    out = tmp_path / "out"
    assert game.collect(out, f"--debs={debs}") == 0
    assert set(WorkList.read(out / LIST_NAME).packages) == {"game", "broken"}
    said = {record.getMessage() for record in caplog.records}
    for name, words in (
        ("absent", "apt does not know it"),
        ("silent", "no recordings where they are looked for"),
        ("bare", "has no usr/share/doc/bare/copyright"),
        ("damaged", "is damaged; delete it and start again"),
        ("changed", "E: "),
        ("noise", "none of its recordings can be played"),
        ("noise", "free.ogg"),
        ("broken", "free-1.ogg"),
    ):
        assert any(name in line and words in line for line in said), (name, said)
    assert len(said) == 8
    assert "6 packages were skipped" in capsys.readouterr().out
    assert not [path for path in out.rglob("*") if path.name.startswith((".", "part"))]


def test_a_second_start_passes_over_what_is_done_and_tries_the_rest_again(
    game: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    game.entry("later")
    out = tmp_path / "out"
    assert game.collect(out) == 0
    (out / ".unpacked-killed").mkdir()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    game.package("later", "1.0-1", {"usr/share/later/music/free.ogg": tmp_path / "1.ogg"})
    capsys.readouterr()
    assert game.collect(out) == 0
    assert "game:" not in capsys.readouterr().out
    assert set(works(out)) == {"free-1.ogg", "free-2.ogg", "free.ogg"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (out / ".unpacked-killed").exists()


def test_packages_are_kept_on_demand_and_then_not_fetched_again(
    game: Archive, tmp_path: Path
) -> None:
    debs = tmp_path / "debs"
    assert game.collect(tmp_path / "one", f"--debs={debs}") == 0
    assert [path.name for path in debs.iterdir()] == ["game_1.0-1_all.deb"]
    shutil.rmtree(game.debs)
    assert game.collect(tmp_path / "two", f"--debs={debs}") == 0
    assert works(tmp_path / "two") == works(tmp_path / "one")


def test_music_in_an_archive_in_the_package_is_found(game: Archive, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.pk3", "w") as zipped:
        zipped.write(tmp_path / "1.ogg", "music/free-1.ogg")
        zipped.write(tmp_path / "2.ogg", "sound/free-2.ogg")
    game.package("zipped", "1.0-1", {"usr/share/zipped/data.pk3": tmp_path / "data.pk3"})
    game.entry("zipped", root='"usr/share/zipped/data.pk3"')
    assert game.collect(tmp_path / "out", "--packages", "zipped") == 0
    (work,) = WorkList.read(tmp_path / "out" / LIST_NAME).works
    assert work.source == "usr/share/zipped/data.pk3:music/free-1.ogg"
    assert work.license == "GPL-3+ or CC-BY-SA-3.0"


@pytest.mark.parametrize("changed", [False, True])
def test_what_a_person_has_read_holds_for_that_copyright_file_alone(
    changed: bool, game: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prose = "The music is by Anna and under the licence CC-BY 3.0.\n"
    game.package("prose", "1.0-1", {"usr/share/prose/music/a.ogg": tmp_path / "1.ogg"}, prose)
    read = prose + "Not any longer.\n" if changed else prose
    game.entry("prose", copyright_sha256=f'"{hashlib.sha256(read.encode()).hexdigest()}"')
    with game.list.open("a") as file:
        file.write('[[package.read]]\nfiles = ["data/music/*"]\n')
        file.write('license = "CC-BY-3.0"\ncopyright = "Anna"\n')
    assert game.collect(tmp_path / "out", "--packages", "prose") == (2 if changed else 0)
    if changed:
        assert "prose: nobody has read the copyright file" in caplog.text
    else:
        assert works(tmp_path / "out") == {"a.ogg": "CC-BY-3.0"}


def test_music_that_is_held_out_can_be_measured_with_and_not_trained_on(
    archive: Archive, tmp_path: Path
) -> None:
    files = {"usr/share/heard/music/a.ogg": song(tmp_path / "1.ogg")}
    archive.package("heard", "1.0-1", files, "All rights reserved, perhaps.\n")
    archive.entry("heard", use='"measure"')
    out = tmp_path / "out"
    assert archive.collect(out, "--held") == 0
    assert WorkList.read(out / LIST_NAME).held_out
    for data in (out, out.parent):
        with pytest.raises(SettingsError, match="kept out of training"):
            collect.collect(data, tmp_path / "music", tmp_path / "held", 1.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--packages", "unlisted"], "unlisted is not in"),
        (["--packages", "measured"], "--held fetches it to measure with"),
        (["--packages", "unheard"], "held out, of training and of measuring"),
        (["--packages", "unheard", "--held"], "held out, of training and of measuring"),
        (["--packages", "banned"], "banned is not taken: no copies for money"),
        (["--packages", "game", "--held"], "game is for training; leave --held out"),
        (["--packages", "copyleft"], "under the GPL alone; give --gpl too"),
        (["--list=missing.toml"], "cannot be read"),
        (["--list=setup.cfg"], "is no list of packages"),
    ],
)
def test_packages_that_are_not_to_be_had_are_refused(
    arguments: list[str],
    words: str,
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive.entry("game")
    archive.entry("measured", use='"measure"')
    archive.entry("unheard", use='"never"')
    archive.entry("banned", use='"refused"', why='"no copies for money"')
    archive.entry("copyleft", gpl="true")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.cfg").write_text("[[package]]\nname = 'game'\nuse = 'everywhere'\n")
    assert archive.collect(tmp_path / "out", *arguments) == 2
    assert words in refused(capsys)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_begun_otherwise_is_refused(
    game: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert game.collect(tmp_path / "out") == 0
    for arguments in (["--gpl"], ["--minutes=3"], ["--format=opus"]):
        assert game.collect(tmp_path / "out", *arguments) == 2
        assert "was begun with other settings" in refused(capsys)
    (tmp_path / "out" / LIST_NAME).write_text("{}")
    assert game.collect(tmp_path / "out") == 2
    assert "is no list of works" in refused(capsys)


def test_a_folder_that_cannot_be_written_is_refused(
    game: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert game.collect(tmp_path / "1.ogg" / "out") == 2
    assert "cannot be written: Not a directory" in refused(capsys)


def test_without_apt_one_sentence_says_where_to_run_it(
    game: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert game.collect(tmp_path / "out") == 2
    assert "there is no apt-get here" in refused(capsys)


def test_no_package_at_all_is_an_error(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.entry("absent")
    assert archive.collect(tmp_path / "out") == 2
    assert "no package could be used" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 3, 10, 100])
@pytest.mark.parametrize("most_s", [15.0, 100.0, 480.0, 5000.0])
def test_no_package_has_more_than_its_share(count: int, most_s: float) -> None:
    lengths = list(np.random.default_rng(count).uniform(5, 300, count))
    shares = collect_free._shares(lengths, most_s)
    assert all(share <= length for share, length in zip(shares, lengths, strict=True))
    assert sum(shares) <= most_s + 1e-6
    taken = [index for index, share in enumerate(shares) if share]
    assert sum(shares) == pytest.approx(min(most_s, sum(lengths[index] for index in taken)))
    assert min(shares[index] for index in taken) >= min(20.0, most_s, min(lengths))
    if count * 20 <= most_s:
        assert len(taken) == count
    elif len(taken) > 1:  # of many, those in between are left out, not those at the end
        assert max(taken) >= count * (1 - 1 / len(taken)) - 1


@pytest.mark.parametrize(
    ("expression", "terms"),
    [
        ("CC-BY-SA-3.0+", Terms.FREE),
        ("CC-by-sa-3.0", Terms.FREE),
        ("CC0", Terms.FREE),
        ("CC0-1.0", Terms.FREE),
        ("CC-BY 4.0", Terms.FREE),
        ("BSD-2-Clause", Terms.FREE),
        ("Zlib", Terms.FREE),
        ("Expat", Terms.FREE),
        ("public-domain", Terms.FREE),
        ("Public Domain", Terms.FREE),
        ("GPL-2 or GPL-3", Terms.GPL),
        ("GPL-2+ with OpenSSL exception", Terms.GPL),
        ("LGPL-2.1+", Terms.GPL),
        ("GPL-3 or CC-BY-3.0", Terms.FREE),
        ("GPL-2+ and CC-BY-SA-3.0", Terms.GPL),
        ("GPL-2 or CC0, and CC-BY-3.0", Terms.FREE),
        ("CC0 or GPL-2, and Proprietary", Terms.OTHER),
        ("CC-BY-NC-3.0", Terms.OTHER),
        ("CC-BY-NC-SA-4.0", Terms.OTHER),
        ("CC-BY-ND-3.0", Terms.OTHER),
        ("CC-BY-3.0-NC", Terms.OTHER),
        ("CC-BY-SA-3.0 and CC-BY-NC-3.0", Terms.OTHER),
        ("GFDL-1.3", Terms.OTHER),
        ("Drascula-License", Terms.OTHER),
        ("", Terms.OTHER),
    ],
)
def test_licences_are_told_apart(expression: str, terms: Terms) -> None:
    assert terms_of(expression) is terms


def test_the_last_paragraph_that_matches_a_file_holds() -> None:
    text = (
        FORMAT
        + """
Files: *
Copyright: Everybody
License: GPL-2+

Files: music/*
Copyright: Anna
License: CC-BY-3.0

Files: music/old/*
Copyright: not known
License:
 Public Domain
 .
 As far as anybody knows.

Files: fonts/*
Copyright: Somebody
"""
    )
    own = [(["music/b?.ogg"], Statement("CC0", "Otto"))]
    statements = CopyrightFile(text, own)
    for path, license in {
        "readme": "GPL-2+",
        "music/a.ogg": "CC-BY-3.0",
        "music/old/a.ogg": "Public Domain",
        "music/b1.ogg": "CC0",
        "extra/music/a.ogg": "GPL-2+",
        "fonts/a.ttf": "GPL-2+",
    }.items():
        found = statements.statement(path)
        assert found is not None
        assert found.license == license, path
    assert CopyrightFile("Free for all, says the author.\n").statement("music/a.ogg") is None


TRAINED_BEFORE = 42
HELD_OUT = {
    "measure": {
        "hyperrogue-music",
        "starfighter-data",
        "openclonk-data",
        "freedink-data",
        "lordsawar-data",
        "trackballs-data",
        "fretsonfire-songs-sectoid",
        "zaz-data",
    },
    "never": {
        "pingus-data",
        "frozen-bubble-data",
        "lbreakout2-data",
        "armagetronad-data",
        "gcompris-qt-data",
        "tworld-data",
        "xmoto-data",
    },
}


def test_the_bundled_list_keeps_apart_what_is_held_out() -> None:
    packages = read_packages(LIST)
    for use, names in HELD_OUT.items():
        assert {name for name, package in packages.items() if package.use == use} == names
    others = [package for package in packages.values() if package.use in ("train", "refused")]
    assert len(others) == TRAINED_BEFORE
    for package in others:
        assert package.version
        assert package.root
        assert package.files
        assert bool(package.read) == bool(package.copyright_sha256)
        assert (package.use == "refused") == bool(package.why)


def test_the_works_that_the_bundled_weights_have_heard_are_credited() -> None:
    heard = WorkList.read(ROOT / "codec" / "nano" / "nano-6.works.json")
    packages = read_packages(LIST)
    assert {packages[name].use for name in heard.packages} == {"train", "refused"}
    licences = (ROOT / "LICENSE_weights").read_text(encoding="utf-8")
    assert heard.works
    assert [c.line() for c in credits_of(heard.works) if c.line() not in licences] == []
    for work in heard.works:
        assert terms_of(work.license) is not Terms.OTHER or work.package == "drascula-music"
