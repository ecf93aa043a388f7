# Fetches a pinned package through its ecosystem's ordinary client, checks its
# SHA-256 and unpacks it. Sourced by make-assets.sh and pretrain.sh.
#
# The caller sets $work: a folder outside the tree, kept between runs.

# check_sum FILE SHA256: refuses a file whose bytes are not the pinned ones.
check_sum() {
    local got
    got=$(sha256sum "$1" | cut -d' ' -f1)
    if [ "$got" != "$2" ]; then
        echo "error: $1 has SHA-256 $got, expected $2; delete it and run again," \
             "or the package was published anew under the same version" >&2
        return 1
    fi
}

# fetch KIND NAME VERSION FILE SHA256: leaves the unpacked package in
# $work/unpacked/NAME. KIND is debian, python or node.
fetch() {
    local kind=$1 name=$2 version=$3 file=$4 sum=$5
    local out="$work/unpacked/${name##*/}"
    mkdir -p "$work/packages"
    if [ ! -f "$work/packages/$file" ]; then
        case $kind in
            debian) (cd "$work/packages" && apt-get download "$name=$version") ;;
            python) pip download --quiet --no-deps --dest "$work/packages" "$name==$version" ;;
            node) (cd "$work/packages" && npm pack --silent "$name@$version") ;;
            *) echo "error: unknown package kind $kind" >&2; return 1 ;;
        esac
    fi
    check_sum "$work/packages/$file" "$sum"
    rm -rf "$out" && mkdir -p "$out"
    case $kind in
        debian) dpkg -x "$work/packages/$file" "$out" ;;
        python) python3 -m zipfile -e "$work/packages/$file" "$out" ;;
        node) tar -xzf "$work/packages/$file" -C "$out" --strip-components 1 ;;
    esac
}

# python_with VENV PACKAGE==VERSION...: prints the interpreter of a virtual
# environment outside the tree that holds exactly these packages.
python_with() {
    local venv=$1
    shift
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "$@" >&2
    echo "$venv/bin/python"
}
