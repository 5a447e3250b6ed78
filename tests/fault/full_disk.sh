#!/usr/bin/env bash
# full_disk.sh [KIB...]: a run on a disk of so many KiB (a tmpfs of its own, in a mount namespace),
# which is too small. It trains on or ends with code 4 and one message; what it kept is whole; and with
# more room it goes on from there. Without arguments, as a test: one size.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/environment.sh"
. "$here/../support/run.sh"
unset OMPI_COMM_WORLD_RANK
if [ "${1:-}" != --inside ]; then
    # In a namespace nothing is left behind, whatever happens to this script.
    unshare --mount --map-root-user true 2>/dev/null ||
        { echo "skipped: this machine does not let its users mount a tmpfs (unshare --mount)"; exit 0; }
    exec unshare --mount --map-root-user bash "$0" --inside "${@:-2300}"
fi
shift
disk=$(mktemp -d)
trap 'umount "$disk" 2>/dev/null; rmdir "$disk"' EXIT
for kib in $*; do
    mount -t tmpfs -o "size=${kib}k" tmpfs "$disk" || fail "no tmpfs of $kib KiB"
    ranks 2 "$config" --run-dir "$disk/run" --quiet "${costs[@]}" --set train.steps=24 \
        --set checkpoint.interval=4 --set checkpoint.keep=100 >out.txt 2>err.txt
    code=$?
    case $code in
    0) said="trained on" ;;
    4) said="code 4" ;;
    *) fail "$kib KiB: code $code: $(head -c 600 err.txt)" ;;
    esac
    [ $code = 0 ] || [ "$(grep -c '^moetrain: ' err.txt)" = 1 ] || fail "$kib KiB: one message expected: $(cat err.txt)"
    [ $code = 0 ] || grep -q "$disk/run" err.txt || fail "$kib KiB: the message names no file: $(cat err.txt)"
    newest=0
    for step in "$disk"/run/checkpoints/step-*; do
        [ -d "$step" ] || continue
        "$MOETRAIN" verify "$step" >/dev/null || fail "$kib KiB: $step is not whole"
        newest=$((10#${step##*-}))
    done
    mount -o remount,size=64m "$disk"
    ranks 2 "$config" --run-dir "$disk/run" --quiet "${costs[@]}" --set train.steps=24 \
        --set checkpoint.interval=4 --set checkpoint.keep=100 >out.txt 2>err.txt || fail "$kib KiB: with room: $(cat err.txt)"
    [ $newest = 0 ] || grep -q "at step $newest\$" "$disk/run/run.log" ||
        fail "$kib KiB: did not go on from step $newest: $(cat "$disk/run/run.log")"
    metrics steps "$disk/run/metrics.jsonl" 1 24
    echo "$kib KiB: $said, went on from step $newest with more room"
    umount "$disk"
done
