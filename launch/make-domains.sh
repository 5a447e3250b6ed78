#!/bin/bash
# A corpus of several domains, to see whether experts specialise: the documentation of Linux, Perl
# and Python as OUT_DIR/{linux,perl,python}-{train,validation}.txt, English sources only. Every 20th
# file is for validation.
#
# The packages are downloaded and unpacked below OUT_DIR, not installed: container images are set up
# to leave /usr/share/doc out of what they install. With --no-install only installed ones are used.
set -euo pipefail
export LC_ALL=C

. "$(dirname "${BASH_SOURCE[0]}")/corpus.sh"
mkdir -p "$out"
out=$(cd "$out" && pwd)
temporary=$(mktemp -d "$out/.make-domains.XXXXXX")
trap 'rm -rf "$temporary"' EXIT

# The package that a metapackage (linux-doc, python3-doc) stands for, or the name itself.
real_package()
{
    apt-cache depends "$1" 2>/dev/null | awk -v name="$1" '
        $1 == "Depends:" && $2 ~ /-doc/ { name = $2; exit } END { print name }'
}

# list_files ROOT DOMAIN: the sources of a domain below ROOT, in a fixed order.
list_files()
{
    case $2 in
    linux)
        find "$1"/usr/share/doc/linux-doc*/Documentation -type f \
            \( -name '*.rst' -o -name '*.rst.gz' \) ! -path '*/translations/*' ;;
    perl)
        # perl itself brings perldiag.pod alone: the documentation is where perlfunc.pod is
        find "$1"/usr/share/perl/*/pod/perlfunc.pod -printf '%h\n' | head -n 1 | xargs -r -I{} \
            find {} -type f -name 'perl*.pod' \
            ! -name perlcn.pod ! -name perljp.pod ! -name perlko.pod ! -name perltw.pod ;;
    python)
        find "$1"/usr/share/doc/python3.[0-9]*[0-9]/html/_sources -type f -name '*.rst.txt' ;;
    esac 2>/dev/null | sort
}

# fetch PACKAGE: unpacks it below $temporary/root.
fetch()
{
    local package
    package=$(real_package "$1")
    mkdir -p "$temporary/root" "$temporary/deb"
    (cd "$temporary/deb" && apt-get -qq -o APT::Sandbox::User=root download "$package") ||
        fail "apt-get could not download $package; a reachable Debian mirror is needed" 4
    dpkg-deb -x "$temporary"/deb/*.deb "$temporary/root"
    rm -rf "$temporary/deb"
}

# make_domain DOMAIN PACKAGE
make_domain()
{
    local domain=$1 package=$2 files=$temporary/files n=0 part
    if [ -s "$out/$domain-train.txt" ] && [ -s "$out/$domain-validation.txt" ]; then
        return 0
    fi
    list_files "" "$domain" >"$files" || true
    if [ ! -s "$files" ]; then
        [ $install = yes ] ||
            fail "the texts of the package $package are not on this machine; install it" 4
        fetch "$package"
        list_files "$temporary/root" "$domain" >"$files" || true
        [ -s "$files" ] || fail "the package $package holds none of the expected texts" 3
    fi
    : >"$temporary/train"
    : >"$temporary/validation"
    while IFS= read -r file; do
        part=train
        [ $((n % 20)) -ne 10 ] || part=validation
        case $file in
        *.gz) gzip -dc "$file" ;;
        *) cat "$file" ;;
        esac >>"$temporary/$part"
        n=$((n + 1))
    done <"$files"
    mv "$temporary/train" "$out/$domain-train.txt"
    mv "$temporary/validation" "$out/$domain-validation.txt"
}

make_domain linux linux-doc
make_domain perl perl-doc
make_domain python python3-doc
