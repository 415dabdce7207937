#!/bin/bash
# Builds virtiofsd inside the build root for Rust (see tools/component: root_component).
#
#   /src/virtiofsd.deb   Debian's package of the source
#   /src/crates.txt      the crates that are to be linked, "<crate>: <licence>" in Debian's names
#   /src/required.txt    options that the result must have
#   /src/sysroot.tar.zst libraries of another architecture, if it is for one
#   VERSION              version of the package, as the lock pins it
#   TARGET               Rust's name of the architecture
#   CROSS_COMPILE        C compiler for it, as a prefix; empty for that of the root
#   EMULATOR             runs its programs here; empty where nothing has to
set -euo pipefail

step() { echo "kiln: step: $*"; }

libraries=/usr/lib/x86_64-linux-gnu
emulator=()
# What cargo puts before the names of variables that are for the target alone.
variable=CARGO_TARGET_${TARGET//-/_}
variable=${variable^^}
if [ -n "$CROSS_COMPILE" ]; then
	step "unpack the libraries for ${CROSS_COMPILE%-}"
	mkdir /build/sysroot
	tar --no-same-owner -xf /src/sysroot.tar.zst -C /build/sysroot
	libraries=/build/sysroot/usr/lib/${CROSS_COMPILE%-}
	printf '#!/bin/sh\nexec %sgcc --sysroot=/build/sysroot "$@"\n' "$CROSS_COMPILE" >/build/linker
	chmod 0755 /build/linker
	export "${variable}_LINKER=/build/linker"
	emulator=("$EMULATOR")
fi

step "unpack the source"
mkdir /build/virtiofsd
data=$(ar t /src/virtiofsd.deb | grep '^data[.]tar')
ar p /src/virtiofsd.deb "$data" | tar -x --xz -C /build/virtiofsd --strip-components=6 --wildcards './usr/share/cargo/registry/virtiofsd-*'
cd /build/virtiofsd
# The first version in it is that of the package itself.
upstream=$(sed -n 's/^version = "\(.*\)"$/\1/p;T;q' Cargo.toml)
case $VERSION in
"$upstream"-*) ;;
*)
	echo "kiln: the source in virtiofsd.deb is $upstream, but the lock calls the package $VERSION" >&2
	exit 1
	;;
esac

step "find the crates of virtiofsd $upstream"
# Debian's packages install crates to a directory that cargo can take for the registry.
export CARGO_HOME=/build/cargo CARGO_NET_OFFLINE=true
mkdir "$CARGO_HOME"
cat >"$CARGO_HOME/config.toml" <<'EOF'
[source.crates-io]
replace-with = "debian"

[source.debian]
directory = "/usr/share/cargo/registry"
EOF
cargo generate-lockfile --quiet
# What is linked: neither build scripts and what they use nor macros. Debian writes "-" for "_",
# and may have the version in the name of a package.
cargo tree --locked --target="$TARGET" --edges=normal,no-proc-macro --prefix=none --no-dedupe --format='{p}: {l}' |
	sed -E '/^virtiofsd v/d; s/ v[^:]*//; :name s/^([^:]*)_/\1-/; t name; s#/# OR #g' | sort -u >/build/linked
sed -E 's/^([^:]*)-[0-9][0-9.]*:/\1:/' /src/crates.txt | sort -u >/build/declared
if ! diff /build/declared /build/linked >/build/difference; then
	echo "kiln: stack/virtiofsd/crates.bzl (<) does not list what is linked (>):" >&2
	grep '^[<>]' /build/difference >&2
	exit 1
fi

step "compile"
# A program that brings its libraries: the two of C, glibc, and all crates. With a target that is
# named, the flag is not for macros and build scripts, which the compiler loads.
export LIBCAPNG_LINK_TYPE=static LIBCAPNG_LIB_PATH=$libraries
export LIBSECCOMP_LINK_TYPE=static LIBSECCOMP_LIB_PATH=$libraries
export "${variable}_RUSTFLAGS=-Ctarget-feature=+crt-static"
# Upstream's profile optimises across crates: all code is compiled once more when it is linked, on
# one CPU, for a program that waits for the file system of its host.
export CARGO_PROFILE_RELEASE_LTO=off
cargo build --locked --release --target="$TARGET" --bin=virtiofsd --target-dir=/build/target --jobs="$KILN_JOBS"
built=/build/target/$TARGET/release/virtiofsd

step "check that the program needs nothing, and what it can"
if readelf -d "$built" | grep -q NEEDED; then
	echo "kiln: virtiofsd needs shared libraries:" >&2
	readelf -d "$built" | grep NEEDED >&2
	exit 1
fi
version=$("${emulator[@]}" "$built" --version)
if [ "$version" != "virtiofsd $upstream" ]; then
	echo "kiln: virtiofsd calls itself '$version', not 'virtiofsd $upstream'" >&2
	exit 1
fi
bash /src/check-required.sh /src/required.txt "${emulator[@]}" "$built"

step "install"
install -D -m 0755 "$built" "$DESTDIR/opt/kata/libexec/virtiofsd"
"${CROSS_COMPILE}strip" "$DESTDIR/opt/kata/libexec/virtiofsd"
