#!/bin/sh
# Brings onnxruntime-web into ./ort: three files, 14 MB, from npm. Needs npm and tar; run it once.
set -eu
version=1.30.0
cd "$(dirname "$0")"
mkdir -p ort
archive=$(npm pack --silent --pack-destination ort "onnxruntime-web@$version")
tar -xzf "ort/$archive" -C ort --strip-components=2 \
    package/dist/ort.wasm.min.mjs package/dist/ort-wasm-simd-threaded.mjs package/dist/ort-wasm-simd-threaded.wasm
rm "ort/$archive"
