# Fetches scikit-learn's wheel, for the digits in it: one file, the same on every
# machine that runs this. Sourced after packages.sh by make-assets.sh and
# pretrain-images.sh.
digits_wheel=scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl
if [ ! -f "$work/packages/$digits_wheel" ]; then
    mkdir -p "$work/packages"
    pip download --quiet --no-deps --only-binary :all: --python-version 3.11 --implementation cp \
        --abi cp311 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --dest "$work/packages" scikit-learn==1.9.1
fi
fetch python scikit-learn 1.9.1 "$digits_wheel" \
    52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df
