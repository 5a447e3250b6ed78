#!/usr/bin/env bash
# launch/rehearse.sh refuses what it cannot do with one message that says what happened, what was expected and
# what to do: bad shapes and rates, clusters that are not up, missing tools.
. "$(dirname "$0")/../support/run.sh"
export BUILD_DIR=$MT_BUILD
cluster=test-refusals-$$

refuse() { # CODE TEXT ARGUMENTS...
    local code=$1 text=$2 got
    shift 2
    timeout -k 5 30 bash "$MT_SOURCE/launch/rehearse.sh" "$@" >out.txt 2>err.txt </dev/null
    got=$?
    [ $got = "$code" ] || fail "expected code $code, got $got from: $* -- $(cat err.txt)"
    [ ! -s out.txt ] || fail "standard output of a refusal: $(cat out.txt) from: $*"
    grep -qE -- "^rehearse.sh: .*$text.*; expected .*; .+" err.txt || fail "expected \"$text\" in: $(cat err.txt)"
    [ "$(wc -l <err.txt)" = 1 ] || fail "one line expected from $*: $(cat err.txt)"
}

refuse 2 "'fly' is not a command" fly
refuse 2 "no shape" up --rate 1gbit
refuse 2 "no rate" up 4x2
refuse 2 "no rate" up 4x2 --rate ""
for shape in 4y2 4 x2 0x2 4x0 4x2x1 -1x2 4X2 99999x1; do
    case $shape in
    -*) refuse 2 "does not know '$shape'" up "$shape" --rate 1gbit ;;
    *) refuse 2 "'$shape' is not a shape" up "$shape" --rate 1gbit ;;
    esac
done
for slow in 4:1gbit 1 x:1gbit :1gbit; do
    refuse 2 "--slow '$slow' is not a host" up 4x2 --rate 1gbit --slow "$slow"
done
refuse 2 "'fast' is not a rate" up 4x2 --rate 1gbit --slow 1:fast
refuse 2 "65 hosts" up 65x1 --rate 1gbit
refuse 2 "512 ranks" up 8x64 --rate 1gbit
refuse 2 "one argument too many" up 4x2 2x2 --rate 1gbit
refuse 2 "does not know '--speed'" up 4x2 --speed 1gbit
for rate in 0 abc -1gbit 1gb 1e9bit 1,5gbit gbit 99999999999gbit; do
    refuse 2 "'$rate' is not a rate" up 4x2 --rate "$rate"
done
for rate in 0mbit 0.5mbit 999kbit 5.001gbit 100gbit; do
    refuse 2 "$rate cannot be reached" up 4x2 --rate "$rate"
done
refuse 2 "has no value" up 4x2 --rate
refuse 2 "is not a name" up 4x2 --rate 1gbit --name a/b
refuse 2 "is not a name" status --name ""
refuse 2 "nothing to run" run --name $cluster
refuse 2 "cluster '$cluster' is not up" run --name $cluster "$config"
refuse 2 "cluster '$cluster' is not up" check --name $cluster
refuse 2 "does not know '4x2'" down 4x2

# Missing tools, one at a time.
mkdir -p path
for tool in bash awk id pgrep mpirun ip tc unshare nsenter flock setsid sed cut tr dirname basename timeout grep wc cat; do
    ln -sf "$(command -v $tool || echo /bin/false)" path/
done
for tool in ip tc mpirun unshare nsenter; do
    mv path/$tool tool
    PATH=$PWD/path refuse 4 "the program '$tool' is missing" up 4x2 --rate 1gbit --name $cluster
    mv tool path/$tool
done
rm -r path
# Missing privileges.
if [ "$(id -u)" = 0 ] && setpriv --bounding-set -sys_admin --inh-caps -sys_admin true 2>/dev/null; then
    for right in sys_admin net_admin; do
        setpriv --bounding-set -$right --inh-caps -$right bash "$MT_SOURCE/launch/rehearse.sh" \
            up 2x1 --rate 1gbit --name $cluster >out.txt 2>err.txt
        [ $? = 4 ] || fail "without CAP_${right^^}: expected code 4: $(cat err.txt)"
        grep -q '^rehearse.sh: this machine gives no namespaces.*Operation not permitted.*; expected ' err.txt ||
            fail "without CAP_${right^^}: $(cat err.txt)"
    done
fi
