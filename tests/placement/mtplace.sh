#!/usr/bin/env bash
# libmtplace as others meet it: installed, without MPI, showing nothing but its header; both examples say
# the same, linked statically, dynamically and through ctypes.
. "$MT_SOURCE/tests/support/run.sh"
rm -rf prefix example-*
cmake --install "$MT_BUILD" --prefix "$PWD/prefix" >install.txt 2>&1 || fail "$(tail -5 install.txt)"
shared=$(find prefix -name 'libmtplace.so.1')
static=$(find prefix -name 'libmtplace.a')
[ -n "$shared" ] && [ -n "$static" ] || fail "not installed: $(find prefix | head -20)"
[ "$(find prefix -name '*.h')" = prefix/include/mtplace.h ] || fail "headers: $(find prefix -name '*.h')"

nm -D --defined-only "$shared" | awk '{ print $3 }' | grep -v '^mtplace_' >foreign.txt
[ ! -s foreign.txt ] || fail "the shared library shows $(tr '\n' ' ' <foreign.txt)"
for symbol in $(sed -n 's/^MTPLACE_API .*\(mtplace_[a-z_]*\)(.*/\1/p' prefix/include/mtplace.h); do
    nm -D --defined-only "$shared" | grep -q " $symbol\$" || fail "$symbol is not in the library"
done
! nm -D "$shared" | grep -i ' u .*mpi' || fail "the shared library needs MPI"
! nm "$static" 2>/dev/null | grep -i ' u .*mpi_' || fail "the static library needs MPI"
readelf -d "$shared" | grep NEEDED | grep -v -e 'libm\.' -e 'libc\.' -e 'ld-linux' -e 'lib[a-z]*san\.' >needed.txt
[ ! -s needed.txt ] || fail "the shared library needs $(cat needed.txt)"

flags=(-std=c99 -Wall -Wextra -Wpedantic -Werror -Iprefix/include)
sanitize=$(sed -n 's/^MT_SANITIZE:[A-Z]*=//p' "$MT_BUILD/CMakeCache.txt")
[ -z "$sanitize" ] || flags+=("-fsanitize=$sanitize")
cc "${flags[@]}" "$MT_SOURCE/examples/mtplace/example.c" -o example-static "$static" -lm || fail "static"
cc "${flags[@]}" "$MT_SOURCE/examples/mtplace/example.c" -o example-shared "$shared" -lm || fail "shared"
printf '#include <mtplace.h>\nint main() { return mtplace_n_policy() < 1; }\n' >example-cxx.cc
c++ -Wall -Werror ${sanitize:+-fsanitize=$sanitize} -Iprefix/include example-cxx.cc -o example-cxx "$static" -lm || fail "C++"
./example-cxx || fail "from C++: code $?"
./example-static >static.txt || fail "example, static: code $?"
LD_LIBRARY_PATH=$(dirname "$shared") ./example-shared >shared.txt || fail "example, shared: code $?"
cmp static.txt shared.txt || fail "static and shared differ"
grep -qE '^ep +[1-9][0-9]* us, ideal +[1-9]' static.txt || fail "$(cat static.txt)"
if [ -z "$sanitize" ]; then # a sanitizer wants to be loaded before Python
    python3 "$MT_SOURCE/examples/mtplace/example.py" "$shared" >python.txt 2>where.txt ||
        fail "example.py: $(tail -3 where.txt)"
    cmp static.txt python.txt || fail "C and Python differ: $(diff static.txt python.txt)"
    grep -q '^ep: expert 3 on ranks \[1\]$' where.txt || fail "$(cat where.txt)"
fi
