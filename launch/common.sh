# What the scripts share: where things are, what must be installed, how to build. Sourced.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD_DIR=${BUILD_DIR:-build}
case $BUILD_DIR in
/*) ;;
*) BUILD_DIR=$root/$BUILD_DIR ;;
esac

build_packages="gcc g++ cmake ninja-build pkg-config git libopenmpi-dev openmpi-bin libhdf5-dev
    libdnnl-dev ocl-icd-opencl-dev libtomlplusplus-dev libjansson-dev libxxhash-dev libhwloc-dev libcmocka-dev zlib1g-dev
    libpcre2-dev libutf8proc-dev libsentencepiece-dev libprotobuf-c-dev protobuf-c-compiler"

say() { printf '%s\n' "$*"; }

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# install_packages NAME...: those that are missing, through apt; nothing when all are there.
install_packages() {
    local missing=() name
    for name in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] ||
            missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "${NO_INSTALL:-0}" = 1 ]; then
        fail "these packages are missing: ${missing[*]}; install them, or leave --no-install out"
    fi
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    say "installing ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { $sudo apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends \
            "${missing[@]}"; } >"$log" 2>&1; then
        cat "$log" >&2
        fail "apt could not install ${missing[*]}; its words are above"
    fi
    rm -f "$log"
}

# build TARGET [CMAKE OPTIONS]: configures and builds into BUILD_DIR; prints only when something fails.
build() {
    local log=$BUILD_DIR/build.log target=$1
    shift
    { mkdir -p "$BUILD_DIR" && : >"$log"; } 2>/dev/null ||
        fail "$BUILD_DIR cannot be written; expected a folder to build into; name one of your own: BUILD_DIR=FOLDER"
    if ! { cmake -S "$root" -B "$BUILD_DIR" -G Ninja "$@" && cmake --build "$BUILD_DIR" --target "$target"; } \
        >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        fail "the build failed; all of it is in $log"
    fi
}

# can_read_peers: a process may read the memory of a sibling (process_vm_readv), which containers often forbid. Tried
# out: one child reads another's string.
can_read_peers() {
    [ "$(uname -m)" = x86_64 ] && perl -e '
        my ($theirs, $mine) = ("x" x 64, "y" x 64);
        my ($from, $to) = map { unpack("Q", pack("p", $_)) } $theirs, $mine;
        pipe(my $in, my $out);
        my $peer = fork // exit 1;
        if ($peer == 0) { close $out; sysread($in, my $end, 1); exit 0 }
        my $reader = fork // exit 1;
        if ($reader == 0) {
            my $n = syscall(310, $peer, pack("QQ", $to, 64), 1, pack("QQ", $from, 64), 1, 0);
            exit($n == 64 && $mine eq "x" x 64 ? 0 : 1);
        }
        waitpid($reader, 0);
        my $is_refused = $?;
        close $out;
        waitpid($peer, 0);
        exit($is_refused ? 1 : 0)' 2>/dev/null
}

# choose_messages RANKS: sets message_flags, how that many ranks of this machine exchange messages: large ones are
# copied once, straight out of the sender's memory, where that is allowed (docs/decisions/0011-node-memory.md). MPI
# yields in every call that finds nothing only where ranks outnumber cores: else it yields to strangers, for a tick.
choose_messages() {
    message_flags=(--mca mpi_yield_when_idle "$(($1 > $(nproc)))")
    can_read_peers || message_flags+=(--mca btl_vader_single_copy_mechanism none)
}
