"""The bundle of this tree: complete, and described as the catalogue of Open OnDemand's apps wants it."""

from __future__ import annotations

from pathlib import Path

import yaml

from lossi import installing
from lossi.installing import Places

TREE = Path(__file__).parents[3]


def apps() -> set[str]:
    return {str(path.parent.relative_to(TREE)) for path in (TREE / "ood-apps").glob("*/manifest.yml")} | {"passenger-app"}


def test_every_app_of_the_tree_is_in_the_bundle(tmp_path: Path) -> None:
    components = installing.components(installing.shipped(), Places.below(tmp_path))
    names = {component.name for component in components}
    assert {f"lossi-{Path(path).name}" for path in apps() - {"passenger-app"}} < names
    assert {"lossi", "plugin lossi", "widget lossi"} < names
    assert all(component.source.exists() for component in components)
    assert len({component.link for component in components}) == len(components)


def test_what_apps_share_is_written_once_and_installed_into_each(tmp_path: Path) -> None:
    common = TREE / "ood-apps" / "common"
    places = Places.below(tmp_path)
    plan = installing.plan(installing.components(installing.shipped(), places), places, version="1", python=Path("/p"))
    for shared, copies in (
        ("python", ["apps/lossi/bin/python", "apps/lossi-mlflow-embedded/bin/python"]),
        ("starting.py", ["apps/lossi/starting.py", "apps/lossi-mlflow-embedded/starting.py"]),
        *(
            (name, [f"apps/lossi-{app}/{name}" for app in ("jupyter", "mlflow-session")])
            for name in ("form.js", "form.yml.erb", "lossi.rb")
        ),
    ):
        assert {plan.files[path].content for path in copies} == {(common / shared).read_bytes()}
    contents = [path.read_bytes() for path in (TREE / "ood-apps").rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(contents) == len(set(contents))


def test_optional_components_are_there_to_be_chosen(tmp_path: Path) -> None:
    names = {component.name for component in installing.components(installing.shipped(), Places.below(tmp_path))}
    assert set(installing.OPTIONAL) <= names


def test_the_description_for_the_catalogue_of_apps_names_every_app() -> None:
    described = yaml.safe_load((TREE / "appverse.yml").read_text("utf-8"))
    assert {app["path"] for app in described["apps"]} == apps()
    for app in described["apps"]:
        assert app["software"] and app["description"] and app["app_type"] in ("passenger", "batch-connect-basic")
    assert all((TREE / path).is_dir() for path in described["shared_paths"])
