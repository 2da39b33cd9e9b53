#!/usr/bin/env bash
# Makes FOLDER/root, Debian's Python for aarch64 and what it loads, and FOLDER/site, numpy and the ONNX Runtime that is
# installed here, for aarch64: bench/aarch64.sh FOLDER. For qemu-aarch64 -L FOLDER/root. Changes nothing of the system.
set -euo pipefail
mkdir -p "$1/state/lists/partial" "$1/cache/archives/partial" "$1/debs" "$1/root/proc"
folder=$(cd "$1" && pwd)
apt=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$folder/state" -o Dir::State::status=/dev/null
  -o Dir::Cache="$folder/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
apt-get -qq "${apt[@]}" update
version=$(apt-cache "${apt[@]}" depends python3-minimal | sed -n 's/.*Depends: python\(3\.[0-9]*\)-minimal$/\1/p')
cd "$folder/debs"
apt-get -qq "${apt[@]}" download "python$version-minimal" "libpython$version-minimal" "libpython$version-stdlib" \
  libc6 libstdc++6 libgcc-s1 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5
for package in *.deb; do dpkg -x "$package" ../root; done
# ONNX Runtime reads which kernels the processor can run; the emulator would show it that of this machine.
cat > ../root/proc/cpuinfo <<'END'
processor	: 0
BogoMIPS	: 50.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: 0xd0c
CPU revision	: 1

END
ln -sf "python$version" ../root/usr/bin/python3
mapfile -t packages < <(python -m pip freeze | grep -E '^(onnxruntime|numpy|protobuf|flatbuffers|packaging)==')
python -m pip install --quiet --no-deps --target ../site --python-version "$version" --only-binary=:all: \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
  --platform manylinux2014_aarch64 "${packages[@]}"
