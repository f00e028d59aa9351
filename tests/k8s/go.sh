# What builds from Go's module registry have in common. A `build` sources it in its own folder, as `go.sh NAME CACHE`.
# Then $folder is where the programs of these sources belong. If it is not there, `begin` gives the empty folder $new,
# `compile` fills it, and `end` makes it $folder: nobody finds half a build.
set -euo pipefail
name=$1
fail() { printf '%s: %s\n' "$name" "$*" >&2; exit 1; }
[ -n "${2:-}" ] || fail "no cache given"
# Where Go's own installation puts it, which a shell without a profile may not search.
command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || fail "go is missing: install Go $(sed -n 's/^go //p' go.mod) or newer from https://go.dev/dl"
folder=$2/$name/$(cat "${BASH_SOURCE[0]}" build go.mod go.sum $(find . -maxdepth 1 -name '*.go' | sort) | sha256sum | cut -c1-16)
new=$2/$name/unfinished

# Earlier builds go.
begin() {
	rm -rf "${new%/*}"
	mkdir -p "$new"
}
end() { mv "$new" "$folder"; }

# Gets the sources of the program in this folder, which are those of PROJECT.
fetch() {
	# It says nothing of a module that it fetches, and all of one that it cannot have.
	go list -deps . 2>&1 >/dev/null | { grep -v '^go: downloading' || true; } >&2 \
		|| fail "go could not get the sources of $1: is there a network and a Go module proxy?"
}

# Builds a package as a program of $new: `compile PROGRAM PACKAGE [LINKER-FLAGS]`.
compile() { nice go build -p 2 -trimpath -buildvcs=false -ldflags "-s -w ${3:-}" -o "$new/$1" "$2"; }
