# SPDX-License-Identifier: Apache-2.0
"""BUILD says what the source tree is: every file in a target, every dependency declared.

`python tests/build_test.py --fix` writes BUILD anew from the source tree, after files or imports
have changed: a library per room, a library per module of the package's top, a test per test file,
a binary per module that can be run; the dependencies are read from the imports.
"""

import ast
import collections
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "BUILD"
PACKAGE = "object_detection_ext"
# Bazel runs a Python file; this one hands the test file to pytest.
RUNNER = "tests/run_pytest.py"
# Import names whose distribution is called otherwise.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "IPython": "ipython",
    "absl": "absl-py",
    "apache_beam": "apache-beam",
    "cv2": "opencv-python-headless",
    "google_crc32c": "google-crc32c",
    "google": "protobuf",
    "grpc": "grpcio",
    "object_detection": "tf-models-research-object-detection",
    "official": "tf-models-official",
    "tensorflow_serving": "tensorflow-serving-api",
    "tf_keras": "tf-keras",
    "tf_slim": "tf-slim",
}
# Of programs that run where these are installed: no requirement of ours.
BROUGHT_ALONG = {"jax", "torch", "torchvision"}
HEADER = """\
# SPDX-License-Identifier: Apache-2.0
#
# Written by `python tests/build_test.py --fix` from the source tree; tests/build_test.py fails
# when the two differ.
#
# `protos` holds the compiled modules. There is no proto_library: the .proto sources that ours
# imports are not part of the API's distribution; :generate compiles against its descriptors.

load("@pip//:requirements.bzl", "requirement")
load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])

licenses(["notice"])

exports_files(["LICENSE"])
"""

Target = dict[str, object]


def source_files() -> list[str]:
    """The files that must belong to a target, relative to the root."""
    files = [
        path.relative_to(ROOT).as_posix()
        for folder in (PACKAGE, "protos", "benchmarks", "tests")
        for suffix in ("*.py", "*.proto")
        for path in (ROOT / folder).rglob(suffix)
    ]
    return sorted(file for file in files if "__pycache__" not in file)


def library_name(file: str) -> str:
    """The target that a file of the package belongs to: its room, or itself at the top."""
    parts = file.split("/")
    if len(parts) > 2:
        return parts[1]
    return PACKAGE if parts[1] == "__init__.py" else pathlib.Path(file).stem


def program_name(file: str) -> str:
    """The target of a file outside the package, by its path below the top folder."""
    return "_".join(pathlib.Path(file).with_suffix("").parts[1:])


def imports(file: str) -> set[str]:
    """The modules that a source imports, wherever in it; `from a import b` gives a and a.b."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file}:{node.lineno}: relative import"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def dependencies(files: list[str], own_name: str) -> list[str]:
    """Targets and `requirement(...)` names that the imports of the files ask for."""
    own, others = set(), set()
    for module in set().union(*map(imports, files)):
        top = module.split(".")[0]
        if top == PACKAGE:
            path = module.replace(".", "/")
            for file in (f"{path}.py", f"{path}/__init__.py"):
                if (ROOT / file).is_file():
                    own.add(f":{library_name(file)}")
            own.add(f":{PACKAGE}")
        elif top == "tests":
            continue  # every test has :test_helpers
        elif (ROOT / top).is_dir():
            file = f"{module.replace('.', '/')}.py"
            if (ROOT / file).is_file():
                own.add(f":{program_name(file)}")
        elif top not in sys.stdlib_module_names | BROUGHT_ALONG:
            others.add(f'requirement("{DISTRIBUTIONS.get(top, top)}")')
    return sorted(own - {f":{own_name}"}) + sorted(others)


def _is_program(file: str) -> bool:
    return 'if __name__ == "__main__":' in (ROOT / file).read_text(encoding="utf-8")


def expected_targets() -> list[Target]:
    """The targets that the source tree asks for, in the order of BUILD."""
    rooms = collections.defaultdict(list)
    targets: list[Target] = []
    for file in source_files():
        if file.startswith(f"{PACKAGE}/"):
            rooms[library_name(file)].append(file)
    for name, files in rooms.items():
        deps = dependencies(files, name)
        targets.append({"rule": "py_library", "name": name, "srcs": files, "deps": deps})
    for file in source_files():
        if file.startswith("benchmarks/") and not _is_program(file):
            name = program_name(file)
            deps = dependencies([file], name)
            targets.append({"rule": "py_library", "name": name, "srcs": [file], "deps": deps})
    programs = [
        file
        for file in source_files()
        if not file.startswith("tests/") and not file.endswith("__init__.py") and _is_program(file)
    ]
    for file in programs:
        inside = file.startswith(f"{PACKAGE}/")
        name = pathlib.Path(file).stem if inside else program_name(file)
        targets.append(
            {
                "rule": "py_binary",
                "name": f"{name}_bin" if inside else name,
                "main": file,
                "srcs": [file],
                "deps": [f":{library_name(file)}"] if inside else dependencies([file], name),
                **({"data": [":proto_sources"]} if file.startswith("protos/") else {}),
            }
        )
    protos = [file for file in source_files() if file.endswith(".proto")]
    targets.append({"rule": "filegroup", "name": "proto_sources", "srcs": protos})
    return targets + _test_targets()


def _test_targets() -> list[Target]:
    helpers = [
        file
        for file in source_files()
        if file.startswith("tests/") and not file.endswith("_test.py") and file != RUNNER
    ]
    targets: list[Target] = [
        {
            "rule": "py_library",
            "name": "test_helpers",
            "testonly": True,
            "srcs": helpers,
            "deps": dependencies(helpers, "test_helpers"),
        }
    ]
    for file in source_files():
        if file.startswith("tests/") and file.endswith("_test.py"):
            name = pathlib.Path(file).stem
            targets.append(
                {
                    "rule": "py_test",
                    "name": name,
                    "main": RUNNER,
                    "srcs": [RUNNER, file],
                    "args": [file],
                    "deps": [":test_helpers", *dependencies([RUNNER, file], name)],
                }
            )
    return targets


def render(targets: list[Target]) -> str:
    """BUILD as buildifier formats it."""
    lines = [HEADER]
    for target in targets:
        lines.append(f"{target['rule']}(")
        for key, value in target.items():
            if key == "rule" or value == []:
                continue
            if isinstance(value, list):
                items = [v if v.startswith("requirement(") else f'"{v}"' for v in value]
                if len(items) == 1:
                    text = f"[{items[0]}]"
                else:
                    text = "".join(["[\n", *(f"        {item},\n" for item in items), "    ]"])
            else:
                text = f'"{value}"' if isinstance(value, str) else str(value)
            lines.append(f"    {key} = {text},")
        lines.append(")\n")
    return "\n".join(lines)


def parsed_targets() -> dict[str, Target]:
    """The targets of the BUILD file by name; Starlark's calls are Python's."""
    targets: dict[str, Target] = {}
    for statement in ast.parse(BUILD.read_text(encoding="utf-8")).body:
        call = statement.value
        assert isinstance(call, ast.Call), f"BUILD:{statement.lineno} is not a call"
        arguments = {
            keyword.arg: [
                item.value if isinstance(item, ast.Constant) else ast.unparse(item)
                for item in keyword.value.elts
            ]
            if isinstance(keyword.value, ast.List)
            else keyword.value.value
            for keyword in call.keywords
        }
        if "name" in arguments:
            assert arguments["name"] not in targets, f"BUILD: two targets {arguments['name']}"
            targets[arguments["name"]] = {"rule": call.func.id, **arguments}
    return targets


def test_every_source_file_belongs_to_a_target() -> None:
    listed = {file for target in parsed_targets().values() for file in target["srcs"]}
    missing = sorted(set(source_files()) - listed)
    assert not missing, f"run `python tests/build_test.py --fix`; not in BUILD: {missing}"


def test_every_listed_file_exists() -> None:
    for name, target in parsed_targets().items():
        for file in target["srcs"]:
            assert (ROOT / file).is_file(), f"BUILD, target {name}: no file {file}"


def test_every_dependency_is_a_target_or_a_pinned_distribution() -> None:
    targets = parsed_targets()
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    for name, target in targets.items():
        for dependency in target.get("deps", []):
            if dependency.startswith(":"):
                assert dependency[1:] in targets, f"BUILD, target {name}: no target {dependency}"
            else:
                distribution = ast.parse(dependency).body[0].value.args[0].value
                assert distribution in pinned, f"BUILD, target {name}: {distribution}"


def test_dependencies_flow_one_way() -> None:
    targets, done = parsed_targets(), set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"rooms that import each other: {' -> '.join((*path, name))}"
        if name not in done:
            for dependency in targets[name].get("deps", []):
                if dependency.startswith(":"):
                    visit(dependency[1:], (*path, name))
            done.add(name)

    for name in targets:
        visit(name, ())
    assert done == targets.keys()


def test_build_file_is_what_the_source_tree_asks_for() -> None:
    expected = render(expected_targets())
    assert BUILD.read_text(encoding="utf-8") == expected, "run `python tests/build_test.py --fix`"


if __name__ == "__main__":
    if sys.argv[1:] != ["--fix"]:
        sys.exit("usage: python tests/build_test.py --fix")
    BUILD.write_text(render(expected_targets()), encoding="utf-8")
