#!/bin/sh
# Fetches ONNX's conformance cases from PyPI into target/onnx-cases (or a folder given as the first argument): the
# folders `node`, `simple`, `pytorch-converted` and `pytorch-operator` of ONNX's own package, 18 MB to fetch. Nothing is
# installed. `winograph check` runs them.
set -eu

version=1.19.1
hash=sha256:1839af08ab4a909e4af936b8149c27f8c64b96138981024e251906e0539d8bf9

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-${CARGO_TARGET_DIR:-$root/target}/onnx-cases}
if [ -e "$out/version" ] && [ "$(cat "$out/version")" = "$version" ]; then
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "onnx==$version --hash=$hash" > "$work/requirements.txt"
# A virtual environment, so that it works where the system's Python may not install packages. The package is always the
# same one, whatever Python there is.
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
  --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 --platform manylinux_2_17_x86_64 \
  --dest "$work" -r "$work/requirements.txt"
"$work/venv/bin/python" -m zipfile -e "$work"/*.whl "$work/wheel"
mkdir -p "$out"
for folder in node simple pytorch-converted pytorch-operator; do
  rm -rf "${out:?}/$folder"
  cp -r "$work/wheel/onnx/backend/test/data/$folder" "$out/"
done
echo "$version" > "$out/version"
echo "ONNX's cases of $version are in $out"
