#!/bin/bash
# Makes a guest image: the pinned guest packages and the agent in one erofs, the
# dm-verity tree over it, and a disk image that holds both; or an initrd of the same.
#
#   VARIANT   base | confidential | initrd | initrd-confidential
#   SUITE     release of Debian that the packages are of, as it is part of the name of the
#             installed file
#
# Nothing here may depend on time, order or chance: the root hash goes into the
# kernel command line and from there into what a TEE measures.
set -euo pipefail

readonly FS_UUID=6b696c6e-0000-4000-8000-000000000001
readonly DISK_ID=6b696c6e-0000-4000-8000-000000000010
readonly ROOT_ID=6b696c6e-0000-4000-8000-000000000011
readonly HASH_ID=6b696c6e-0000-4000-8000-000000000012
# Partition types of the discoverable partitions specification.
readonly ROOT_TYPE=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
readonly HASH_TYPE=2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5
readonly BLOCK=4096
readonly MIB=1048576

case $VARIANT in
base)
  readonly NAME=kata-debian-$SUITE.image
  readonly LINK=kata-containers.img
  ;;
confidential)
  readonly NAME=kata-debian-$SUITE-confidential.image
  readonly LINK=kata-containers-confidential.img
  ;;
initrd)
  readonly NAME=kata-debian-$SUITE.initrd
  readonly LINK=kata-containers-initrd.img
  ;;
initrd-confidential)
  readonly NAME=kata-debian-$SUITE-confidential.initrd
  readonly LINK=kata-containers-initrd-confidential.img
  ;;
*)
  echo "kiln: unknown variant '$VARIANT' of the guest: it is base, confidential, initrd or initrd-confidential" >&2
  exit 2
  ;;
esac
readonly SHARE=$DESTDIR/opt/kata/share/kata-containers

step() { echo "kiln: step: $*"; }
die() {
  echo "kiln: error: $*" >&2
  exit 1
}

# prune drops what a measured guest must not or need not carry.
prune() {
  local root=$1 dir
  for dir in menu pixmaps perl5 debconf fish zsh initramfs-tools pam-configs base-passwd; do
    rm -rf "${root:?}/usr/share/$dir"
  done
  # A measured guest is never changed, so it has no package management. Only
  # the list of packages stays, for scanners.
  rm -rf "$root"/var/lib/{apt,pam} "$root"/var/{cache,log,mail,spool,backups} \
    "$root"/etc/{apt,dpkg,init.d,cron.d,cron.daily,default,logrotate.d} \
    "$root"/usr/lib/{systemd,tmpfiles.d,mime,udev} "$root/boot"
  [ ! -d "$root/dev" ] || find "$root/dev" -mindepth 1 -delete
  # No program of a guest may raise its privileges by itself.
  find "$root" -type f -perm /6000 -exec chmod a-s {} +
  find "$root" -type d -perm /6000 -exec chmod g-s,u-s {} +
}

# configure makes what the guest packages leave to their maintainer scripts or
# to an administrator, as far as a guest needs it.
configure() {
  local root=$1 dir
  for dir in proc sys dev run tmp mnt opt etc root var/lib var/tmp var/log; do
    mkdir -p "$root/$dir"
  done
  chmod 0755 "$root"
  chmod 0700 "$root/root"
  chmod 1777 "$root/tmp" "$root/var/tmp"
  ln -sfn /run "$root/var/run"
  ln -sfn /run/lock "$root/var/lock"
  # Empty and present: a runtime binds its own files over these.
  : >"$root/etc/machine-id"
  : >"$root/etc/resolv.conf"
  : >"$root/etc/fstab"
  echo kata >"$root/etc/hostname"
  printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
  ln -sfn /proc/mounts "$root/etc/mtab"
}

# install_agent makes the agent the guest's first process.
install_agent() {
  local root=$1
  install -m 0755 /src/kata-agent "$root/usr/bin/kata-agent"
  ln -sfn ../bin/kata-agent "$root/usr/sbin/init"
}

# check_root fails for a tree that must not become an image.
check_root() {
  local root=$1 found
  [ -L "$root/sbin" ] && [ "$(readlink "$root/sbin")" = usr/sbin ] ||
    die "/sbin of the guest is not a link to usr/sbin: base-files is missing from the guest packages"
  for found in etc/passwd etc/group etc/ssl/certs/ca-certificates.crt usr/sbin/iptables usr/bin/mount; do
    [ -e "$root/$found" ] || die "the guest packages lack /$found"
  done
  found=$(find "$root" -perm /6000 -printf '%P ')
  [ -z "$found" ] || die "setuid or setgid in the guest: $found"
  found=$(find "$root" ! -type l -perm -0002 ! -perm -1000 -printf '%P ')
  [ -z "$found" ] || die "writable by everyone in the guest: $found"
  found=$(find "$root" ! -type d ! -type f ! -type l -printf '%P ')
  [ -z "$found" ] || die "device or socket in the guest: $found"
}

# size_of prints a file's size in bytes.
size_of() { stat -c %s "$1"; }

# round_up prints a size rounded up to whole MiB.
round_up() { echo $((($1 + MIB - 1) / MIB * MIB)); }

# make_root makes the guest's root in $1.
make_root() {
  local root=$1
  step "unpacking the guest packages"
  mkdir "$root"
  tar -C "$root" --no-same-owner --same-permissions -xf /src/guest.tar.zst
  if [ -e /src/coco-guest-components.tar ]; then
    step "unpacking the confidential guest components"
    # They come beside the guest packages, and replace none of their files.
    tar -C "$root" --no-same-owner --same-permissions --keep-old-files -xf /src/coco-guest-components.tar ||
      die "the guest components cannot be put into the guest"
  fi
  prune "$root"
  configure "$root"
  install_agent "$root"
  check_root "$root"
}

# make_image makes the disk image of the root in $1, and its root hash.
make_image() {
  local root=$1
  step "making the file system"
  # A sorted tar fixes order and owners whatever the build's file system does.
  tar -C "$root" --format=posix --pax-option=delete=atime,delete=ctime,delete=mtime --sort=name \
    --owner=0 --group=0 --numeric-owner --mtime=@0 -cf /build/root.tar .
  # Not compressed: the layer that carries the image is, and better, and the
  # guest need not unpack while it boots.
  mkfs.erofs --quiet --tar=f -T 0 -U "$FS_UUID" -x -1 --workers=1 /build/root.erofs /build/root.tar
  truncate -s "%$BLOCK" /build/root.erofs
  fsck.erofs /build/root.erofs

  step "making the hash tree"
  local salt root_hash blocks
  # The salt need not be secret, only always the same.
  salt=$(printf %s "$NAME" | sha256sum | cut -d' ' -f1)
  root_hash=$(veritysetup format --no-superblock --hash sha256 --salt "$salt" \
    --data-block-size "$BLOCK" --hash-block-size "$BLOCK" /build/root.erofs /build/root.hash |
    sed -n 's/^Root hash:[[:space:]]*//p')
  [ ${#root_hash} -eq 64 ] || die "veritysetup gave no root hash"
  blocks=$(($(size_of /build/root.erofs) / BLOCK))
  veritysetup verify --no-superblock --hash sha256 --salt "$salt" --data-block-size "$BLOCK" \
    --hash-block-size "$BLOCK" --data-blocks "$blocks" /build/root.erofs /build/root.hash "$root_hash"

  step "making the disk image"
  local root_size hash_size hash_start total
  root_size=$(round_up "$(size_of /build/root.erofs)")
  hash_size=$(round_up "$(size_of /build/root.hash)")
  hash_start=$((MIB + root_size))
  # The last MiB holds the second copy of the partition table.
  total=$((hash_start + hash_size + MIB))
  truncate -s "$total" /build/disk
  sfdisk --quiet --no-reread --no-tell-kernel /build/disk <<EOF
label: gpt
label-id: $DISK_ID
unit: sectors
start=$((MIB / 512)), size=$((root_size / 512)), type=$ROOT_TYPE, uuid=$ROOT_ID, name="root"
start=$((hash_start / 512)), size=$((hash_size / 512)), type=$HASH_TYPE, uuid=$HASH_ID, name="verity"
EOF
  dd if=/build/root.erofs of=/build/disk bs=1M seek=1 conv=notrunc,sparse status=none
  dd if=/build/root.hash of=/build/disk bs=1M seek=$((hash_start / MIB)) conv=notrunc,sparse status=none

  install -m 0644 /build/disk "$SHARE/$NAME"
  echo "root_hash=$root_hash,salt=$salt,data_blocks=$blocks,data_block_size=$BLOCK,hash_block_size=$BLOCK" \
    >"$SHARE/root_hash_$VARIANT.txt"
  install -m 0644 "$SHARE/root_hash_$VARIANT.txt" "$OUT/root_hash"
}

# make_initrd makes an initrd of the root in $1. The kernel starts /init of it.
make_initrd() {
  local root=$1
  step "making the initrd"
  ln -s usr/bin/kata-agent "$root/init"
  find "$root" -exec touch --no-dereference --date=@0 {} +
  # Without an option, cpio writes inode numbers, which are the build's.
  (cd "$root" && find . -print0 | LC_ALL=C sort -z |
    cpio --null --create --format=newc --owner=0:0 --reproducible --quiet) >/build/initrd
  # Of what the guest kernel can unpack, gzip is all.
  gzip -n -6 </build/initrd >"$SHARE/$NAME"
  chmod 0644 "$SHARE/$NAME"
}

main() {
  make_root /build/root
  mkdir -p "$SHARE"
  case $VARIANT in
  initrd*) make_initrd /build/root ;;
  *) make_image /build/root ;;
  esac
  ln -s "$NAME" "$SHARE/$LINK"
}

main
