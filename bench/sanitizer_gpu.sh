#!/bin/sh
# The GPU tests of kernels, convolutions and products under compute-sanitizer: memory, races in shared memory, barriers.
#
#     cargo test -p winograph --no-run && sh bench/sanitizer_gpu.sh target/debug/deps/cuda-HASH target/debug/deps/units-HASH
#
# Needs NVIDIA's compute-sanitizer (of the CUDA toolkit, or $SANITIZER names it), a GPU and NVRTC. Fails with the first tool
# that finds an error. Tests that compare times, fill the device's memory, or whose errors are what is tested, are left out.
set -eu
sanitizer=${SANITIZER:-compute-sanitizer}
command -v "$sanitizer" >/dev/null || { echo "no $sanitizer: install the CUDA toolkit, or set SANITIZER" >&2; exit 1; }
for test in "$@"; do
    for tool in memcheck racecheck synccheck initcheck; do
        echo "$tool $(basename "$test")"
        # Orders of copies and launches are no matter of shared memory, and their long kernels take minutes there.
        case $tool in racecheck|synccheck) skip='--skip order::' ;; *) skip= ;; esac
        "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 5 "$test" --test-threads 1 --nocapture \
            --skip fault:: --skip nobody_waits_for_an_allocation --skip memory_that_ran_out --skip what_cannot_be_is_an_error --skip a_search_is_found --skip nvrtc_compiles --skip calls_return_before $skip
    done
done
