"""The merged catalogue: whose entry wins, and how mistakes are reported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lossi import environments
from lossi.errors import InvalidInput, NotFound

WriteCatalog = Callable[[str], Path]
GOOD = "{title: Good, local: {python: auto}}"


def test_shipped_catalogue_is_valid(home: Path) -> None:
    catalog = environments.load()
    assert catalog.problems == ()
    assert [environment.name for environment in catalog.environments] == ["python", "sklearn", "pytorch", "tensorflow"]
    assert {environment.source for environment in catalog.environments} == {"shipped"}


def test_unknown_environment_suggests_the_closest_name(home: Path) -> None:
    with pytest.raises(NotFound, match=r"no environment 'sklaern'.*did you mean 'sklearn'"):
        environments.load().get("sklaern")
    with pytest.raises(NotFound, match="choose one of python, sklearn"):
        environments.load().get("$(reboot)\n\x1b[2J")


def test_site_wins_over_shipped_and_keeps_the_others(site_catalog: WriteCatalog) -> None:
    path = site_catalog("""\
        environments:
          sklearn:
            title: The site's scikit-learn
            variants: {x86_64: {none: {sif: images/sk.sif}}}
    """)
    catalog = environments.load()
    environment = catalog.get("sklearn")
    assert (environment.title, environment.source, environment.file, environment.line, environment.local) == (
        "The site's scikit-learn",
        "site",
        str(path),
        2,
        None,
    )
    assert environment.variant("x86_64", "none").sif == str(path.parent / "images/sk.sif")  # type: ignore[union-attr]
    assert catalog.get("pytorch").source == "shipped"


def test_section_of_the_site_file_wins_over_its_catalogues(site_catalog: WriteCatalog, home: Path) -> None:
    path = site_catalog(f"environments: {{sklearn: {GOOD}, extra: {GOOD}}}")
    site = home / "no-site.yml"
    site.write_text(
        f"catalogs: [{path}]\nmax_tasks: 5\nenvironments:\n  sklearn: {{title: Inline, local: {{python: auto}}}}\n", "utf-8"
    )
    catalog = environments.load()
    assert (catalog.get("sklearn").title, catalog.get("sklearn").file, catalog.get("sklearn").line) == ("Inline", str(site), 4)
    assert catalog.get("extra").source == "site"
    assert catalog.problems == ()


def test_entry_of_the_user_needs_its_own_name(user_catalog: WriteCatalog) -> None:
    path = user_catalog(f"""\
        environments:
          sklearn: {GOOD}
          mine: {GOOD}
    """)
    catalog = environments.load()
    assert catalog.get("sklearn").source == "shipped"
    assert catalog.get("mine").source == "user"
    (problem,) = catalog.problems
    assert (problem.file, problem.line, problem.key) == (str(path), 2, "environments.sklearn")
    assert "taken by a shipped environment" in problem.message
    assert "my-sklearn" in problem.hint


def test_project_entries_are_merged_after_the_users(user_catalog: WriteCatalog, tmp_path: Path) -> None:
    user_catalog(f"environments: {{mine: {GOOD}}}")
    project = tmp_path / "project"
    (project / ".lossi").mkdir(parents=True)
    (project / ".lossi" / "catalog.yml").write_text(f"environments: {{mine: {GOOD}, ours: {GOOD}}}", "utf-8")
    catalog = environments.load(project)
    assert (catalog.get("mine").source, catalog.get("ours").source) == ("user", "project")
    assert "taken by one of your own environments" in catalog.problems[0].message
    with pytest.raises(NotFound):
        environments.load().get("ours")


def test_valid_entries_stay_next_to_invalid_ones(user_catalog: WriteCatalog) -> None:
    path = user_catalog(f"""\
        environments:
          good: {GOOD}
          wrong:
            title: Wrong
            frameworks: {{python: 3.10}}
            lokal: {{python: auto}}
    """)
    catalog = environments.load()
    assert catalog.get("good").title == "Good"
    places = {(problem.line, problem.key, problem.message, problem.hint) for problem in catalog.problems}
    assert (5, "environments.wrong.frameworks.python", "is not text", 'put it in quotes, for example "3.10"') in places
    assert (6, "environments.wrong.lokal", "is not a known key", "did you mean 'local'?") in places
    with pytest.raises(InvalidInput, match=f"{path}:5") as caught:
        catalog.get("wrong")
    assert caught.value.hint == f"correct {path}"


def test_broken_file_of_the_user_hides_nothing_else(user_catalog: WriteCatalog) -> None:
    path = user_catalog("environments:\n  a: [1\n")
    catalog = environments.load()
    assert catalog.get("sklearn")
    assert str(catalog.problems[0]).startswith(f"{path}:3: is not valid YAML")


def test_broken_site_settings_are_listed_as_a_problem(home: Path) -> None:
    (home / "no-site.yml").write_text("max_tasks: lots\n", "utf-8")
    catalog = environments.load()
    assert catalog.get("sklearn")
    assert "max_tasks" in catalog.problems[0].message


def test_invalid_entry_of_the_site_hides_the_shipped_one(site_catalog: WriteCatalog) -> None:
    site_catalog("environments:\n  sklearn:\n    title: Ours\n")
    catalog = environments.load()
    with pytest.raises(InvalidInput, match="needs a `local` Python or an image under"):
        catalog.get("sklearn")
    assert catalog.get("pytorch")


def test_missing_site_catalogue_is_listed_as_a_problem(site_catalog: WriteCatalog) -> None:
    path = site_catalog("")
    path.unlink()
    assert "does not exist" in str(environments.load().problems[0])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_catalogue_is_listed_as_a_problem(user_catalog: WriteCatalog) -> None:
    user_catalog("environments: {}").chmod(0)
    assert "Permission denied" in environments.load().problems[0].message


def test_only_the_site_may_set_mounts_for_all(site_catalog: WriteCatalog, user_catalog: WriteCatalog) -> None:
    site_catalog("mounts: [{source: /scratch}, {source: /data, read_only: true}]\n")
    user_catalog(f"mounts: [{{source: /home}}]\nenvironments: {{mine: {GOOD}}}")
    catalog = environments.load()
    assert [mount.source for mount in catalog.get("pytorch").mounts] == ["/scratch", "/data"]
    assert [mount.source for mount in catalog.get("mine").mounts] == ["/scratch", "/data"]
    assert "only the site" in catalog.problems[0].message


def test_changed_file_is_read_again(user_catalog: WriteCatalog) -> None:
    path = user_catalog(f"environments: {{one: {GOOD}}}")
    assert environments.load().get("one")
    path.write_text(f"environments: {{another: {GOOD}}}", "utf-8")
    assert environments.load().get("another")


@pytest.mark.parametrize(
    ("entry", "key", "message"),
    [
        ("{title: T}", "", "needs a `local` Python or an image"),
        ("{local: {python: auto}}", "title", "is missing"),
        ("{title: '', local: {python: auto}}", "title", "is empty"),
        ('{title: "a\\nb", local: {python: auto}}', "title", "control character"),
        ("{title: T, local: {python: bin/python}}", "local.python", "not an absolute path"),
        ('{title: T, local: {python: "/a\\n/b"}}', "local.python", "control character"),
        ("{title: T, local: {python: -c}}", "local.python", "not an absolute path"),
        ("{title: T, variants: {x86_65: {none: {image: a}}}}", "variants.x86_65", "did you mean 'x86_64'?"),
        ("{title: T, variants: {x86_64: {gpu: {image: a}}}}", "variants.x86_64.gpu", "known keys: none, cuda, rocm"),
        ("{title: T, variants: {x86_64: {none: {}}}}", "variants.x86_64.none", "has no `image`, `sif` or `recipe`"),
        (
            "{title: T, variants: {x86_64: {none: {image: a, diggest: b}}}}",
            "variants.x86_64.none.diggest",
            "did you mean 'digest'?",
        ),
        (
            "{title: T, variants: {x86_64: {none: {image: a, digest: abc}}}}",
            "variants.x86_64.none.digest",
            "64 hexadecimal digits",
        ),
        ("{title: T, variants: {x86_64: {none: {image: '-v /:/x'}}}}", "variants.x86_64.none.image", "not an image reference"),
        ("{title: T, variants: {x86_64: {none: {image: 'a;$(id)'}}}}", "variants.x86_64.none.image", "not an image reference"),
        (
            "{title: T, variants: {x86_64: {none: {image: 'a@sha256:00'}}}}",
            "variants.x86_64.none.image",
            "write it under `digest`",
        ),
        ("{title: T, local: {python: auto}, variables: {'A B': x}}", "variables.A B", "cannot be the name of a variable"),
        ("{title: T, local: {python: auto}, variables: {APPTAINER_BIND: /}}", "variables.APPTAINER_BIND", "cannot be set here"),
        ("{title: T, local: {python: auto}, variables: {N: 1}}", "variables.N", "is not text"),
        ("{title: T, local: {python: auto}, mounts: [{source: scratch}]}", "mounts.0.source", "not an absolute path"),
        (
            "{title: T, local: {python: auto}, mounts: [{source: /a, readonly: true}]}",
            "mounts.0.readonly",
            "did you mean 'read_only'?",
        ),
        ("[1, 2]", "", "is not a mapping"),
        ("", "title", "is missing"),
    ],
)
def test_invalid_entries_are_listed_with_key_and_line(user_catalog: WriteCatalog, entry: str, key: str, message: str) -> None:
    user_catalog(f"# a comment\nenvironments:\n  wrong: {entry}\n")
    catalog = environments.load()
    texts = [str(problem) for problem in catalog.problems]
    problem = next((item for item in catalog.problems if message in str(item)), None)
    assert problem is not None, texts
    assert problem.line == 3
    assert problem.key == f"environments.wrong.{key}".rstrip(".")


@pytest.mark.parametrize("name", ["-rf", "A", "../x", "a b", "a\\nb", "$(id)", "é", "a" * 64, "", "a/b"])
def test_hostile_names_are_refused(user_catalog: WriteCatalog, name: str) -> None:
    user_catalog(f'environments:\n  "{name}": {GOOD}\n  good: {GOOD}\n')
    catalog = environments.load()
    assert "cannot be a name" in str(catalog.problems[0])
    assert "\n" not in str(catalog.problems[0])
    assert catalog.get("good")
