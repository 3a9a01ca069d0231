#!/bin/sh
# Installs grid for this user, without root:
#
#	sh install.sh [--from URL|FOLDER] [--to FOLDER]
#
# It fetches the archive for this machine from where a release is, checks it against SHA256SUMS there, and puts the command into
# ~/.local/bin, and its manual and completions below ~/.local/share. Nothing is changed before the checksum is right.
set -eu

from=https://github.com/wasmgrid/wasmgrid/releases/latest/download
to=${HOME:?}/.local
fail() { echo "install: $*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case $1 in
    --from) from=${2:?--from wants a URL or a folder}; shift 2 ;;
    --to) to=${2:?--to wants a folder}; shift 2 ;;
    *) fail "what is $1? usage: sh install.sh [--from URL|FOLDER] [--to FOLDER]" ;;
  esac
done

case $(uname -s) in
  Linux) os=linux ;;
  Darwin) os=darwin ;;
  *) fail "there is no release for $(uname -s); build it: go install github.com/wasmgrid/wasmgrid/cmd/grid" ;;
esac
case $(uname -m) in
  x86_64 | amd64) arch=amd64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) fail "there is no release for $(uname -m); build it: go install github.com/wasmgrid/wasmgrid/cmd/grid" ;;
esac

fetch() { # name file
  case $from in
    https://*)
      if command -v curl >/dev/null; then
        curl --proto '=https' -fsSL -o "$2" "$from/$1"
      elif command -v wget >/dev/null; then
        wget -q -O "$2" "$from/$1"
      else
        fail "neither curl nor wget is here"
      fi
      ;;
    *://*) fail "$from: only https is fetched" ;;
    *) cp "$from/$1" "$2" ;;
  esac || fail "cannot fetch $from/$1"
}

sum() {
  if command -v sha256sum >/dev/null; then
    sha256sum "$1"
  elif command -v shasum >/dev/null; then
    shasum -a 256 "$1"
  else
    fail "neither sha256sum nor shasum is here, so the archive cannot be checked"
  fi | cut -d ' ' -f 1
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fetch SHA256SUMS "$tmp/SHA256SUMS"
line=$(grep "  grid_[0-9A-Za-z.+-]*_${os}_${arch}\.tar\.gz\$" "$tmp/SHA256SUMS") || fail "the release has no archive for $os on $arch"
[ "$(echo "$line" | wc -l)" -eq 1 ] || fail "the release has several archives for $os on $arch"
want=${line%% *}
name=${line##* }
fetch "$name" "$tmp/archive"
[ "$(sum "$tmp/archive")" = "$want" ] || fail "$name is not what SHA256SUMS says: it was cut short, or changed on the way. Nothing was installed"
tar -xzf "$tmp/archive" -C "$tmp"
dir=$tmp/${name%.tar.gz}

put() { # file target: in one step, so that a running command is not disturbed
  mkdir -p "$(dirname "$2")"
  cp "$1" "$2.new"
  mv -f "$2.new" "$2"
}
put "$dir/grid" "$to/bin/grid"
put "$dir/completions/grid.bash" "$to/share/bash-completion/completions/grid"
put "$dir/completions/_grid" "$to/share/zsh/site-functions/_grid"
put "$dir/completions/grid.fish" "$to/share/fish/vendor_completions.d/grid.fish"
for page in "$dir"/man/*.1; do
  put "$page" "$to/share/man/man1/$(basename "$page")"
done
echo "installed $("$to/bin/grid" --version) as $to/bin/grid"
case :$PATH: in
  *:"$to/bin":*) ;;
  *) echo "put $to/bin into your PATH" ;;
esac
