#!/bin/sh
# Fetches NVRTC, NVIDIA's run-time compiler for CUDA C, from PyPI into target/nvrtc (or a folder given as the first
# argument): the library and its builtins, 61 MB. Tests find it there. Nothing is installed, and no GPU is needed.
# The version is the last one of 24 MB; later ones take 90. NVIDIA's licence is in the package.
set -eu

version=12.6.85
hash=sha256:800927308ccc5dd6246d3f61f7fcef2ed7ec4e59e199090d360d3293f78bd5a2

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-${CARGO_TARGET_DIR:-$root/target}/nvrtc}
if [ -e "$out/version" ] && [ "$(cat "$out/version")" = "$version" ]; then
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "nvidia-cuda-nvrtc-cu12==$version --hash=$hash" > "$work/requirements.txt"
# A virtual environment, so that it works where the system's Python may not install packages.
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
  --only-binary=:all: --platform manylinux2010_x86_64 --dest "$work" -r "$work/requirements.txt"
"$work/venv/bin/python" -m zipfile -e "$work"/*.whl "$work/wheel"
mkdir -p "$out"
cp "$work"/wheel/nvidia/cuda_nvrtc/lib/* "$work"/wheel/*.dist-info/License.txt "$out/"
echo "$version" > "$out/version"
echo "NVRTC $version is in $out"
