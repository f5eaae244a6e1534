# Software Vulkan adapters for the tests: what to install, and which
# environment puts a command on which adapter. Meant to be sourced:
#
#   adapters_install        install whatever is missing (Debian; apt-get)
#   adapter_names           the known names, one a line
#   adapter_skip_reason N   why adapter N can't run here; fails if it can
#   adapter_env N           the environment of adapter N, KEY=VALUE a line
#   adapter_describe N      device, driver and subgroup size, one line
#
#   lavapipe4 lavapipe8 lavapipe16   Mesa's CPU driver at 128, 256 and 512-bit
#                                    vectors: subgroups of 4, 8 and 16
#   core                             lavapipe8 held to the WebGPU core limits
#   swiftshader                      the CPU driver that Chromium carries
#   matrices                         lavapipe of Mesa 26, whose subgroups multiply
#                                    matrices
#
# The last two are not installed: SwiftShader is unpacked from Debian's
# chromium-common into a cache folder, $FATHOM_TEST_CACHE (default
# ~/.cache/fathom-test), and Mesa 26 from the backports of a later Debian, with
# all libraries that it wants. Cargo runs what it runs by that Debian's loader
# then, so this adapter is for commands of cargo alone.

FATHOM_TEST_CACHE=${FATHOM_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/fathom-test}
MESA_WANTED=25.0
# The Debian whose backports have a lavapipe with cooperative matrices.
MATRICES_RELEASE=trixie
BACKPORTS_FILE=/etc/apt/sources.list.d/fathom-backports.sources

adapter_names() {
  printf '%s\n' lavapipe4 lavapipe8 lavapipe16 core swiftshader matrices
}

_say() { printf '%s\n' "$*" >&2; }

_as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

_apt_install() {
  _as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "$@" >&2
}

_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

_is_debian() {
  [ -r /etc/os-release ] && [ "$(. /etc/os-release && printf %s "${ID:-}")" = debian ]
}

# The deb822 entry of this machine's own Debian archive, with the suites
# replaced by $1. Reads deb822 files first, then one-line lists.
_backports_entry() {
  local suite=$1 codename=$2 file
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -r "$file" ] && [ "$file" != "$BACKPORTS_FILE" ] || continue
    # A paragraph is an entry; a line that starts with a blank continues the
    # field above it (an inline key, say).
    awk -v want="$codename" -v suite="$suite" '
      function flush_entry() {
        if (uris != "" && enabled && (" " suites " ") ~ ("[ ]" want "[ ]")) {
          printf "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n", uris, suite
          if (key != "") printf "Signed-By:%s\n", key
          found = 1
          exit
        }
        uris = suites = key = field = ""; enabled = 1
      }
      BEGIN { enabled = 1 }
      /^#/ { next }
      /^[ \t]*$/ { flush_entry(); next }
      /^[ \t]/ { if (field == "signed-by") key = key "\n" $0; next }
      {
        at = index($0, ":"); field = tolower(substr($0, 1, at - 1))
        value = substr($0, at + 1)
        if (field == "signed-by") { key = value; next }
        gsub(/^[ \t]+|[ \t]+$/, "", value); gsub(/[ \t]+/, " ", value)
        if (field == "uris") uris = value
        if (field == "suites") suites = value
        if (field == "enabled" && tolower(value) == "no") enabled = 0
      }
      END { if (!found) { flush_entry() } }
    ' "$file" | grep . && return 0
  done
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -r "$file" ] || continue
    awk -v want="$codename" -v suite="$suite" '
      $1 == "deb" {
        line = $0; key = ""
        if (match(line, /\[[^]]*\]/)) {
          n = split(substr(line, RSTART + 1, RLENGTH - 2), options, /[ \t]+/)
          for (i = 1; i <= n; i++)
            if (options[i] ~ /^signed-by=/) key = substr(options[i], 11)
          line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
        }
        split(line, part, /[ \t]+/)
        if (part[3] == want) {
          printf "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n", part[2], suite
          if (key != "") printf "Signed-By: %s\n", key
          exit
        }
      }
    ' "$file" | grep . && return 0
  done
  return 1
}

_candidate() {
  apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'
}

_version_of() {
  dpkg-query -W -f '${Version}' "$1" 2>/dev/null
}

_install_lavapipe() {
  local codename suite entry
  if _installed mesa-vulkan-drivers &&
    dpkg --compare-versions "$(_version_of mesa-vulkan-drivers)" ge "$MESA_WANTED"; then
    return 0
  fi
  if dpkg --compare-versions "$(_candidate mesa-vulkan-drivers)" ge "$MESA_WANTED"; then
    _apt_install mesa-vulkan-drivers
    return
  fi
  codename=$(. /etc/os-release && printf %s "${VERSION_CODENAME:-}")
  suite=$codename-backports
  # (Not `| grep -q`: it ends at the first match, and pipefail then takes
  # apt-cache's broken pipe for a failure.)
  if [[ $(apt-cache policy) != *"n=$suite,"* ]]; then
    if [ -n "$codename" ] && entry=$(_backports_entry "$suite" "$codename"); then
      _say "adapters: adding $suite in $BACKPORTS_FILE, for Mesa $MESA_WANTED or later"
      printf '%s\n' "$entry" | _as_root tee "$BACKPORTS_FILE" >/dev/null
      if ! _as_root apt-get update -q -o APT::Update::Error-Mode=any >&2; then
        _say "adapters: $suite can't be read; taking it out again"
        _as_root rm -f "$BACKPORTS_FILE"
        _as_root apt-get update -q >&2 || true
      fi
    fi
  fi
  if [[ $(apt-cache policy mesa-vulkan-drivers) == *" $suite/"* ]]; then
    _apt_install -t "$suite" mesa-vulkan-drivers
  else
    _say "adapters: no $suite here; taking the release's own Mesa"
    _apt_install mesa-vulkan-drivers
  fi
}

_swiftshader_icd() {
  local dir=$FATHOM_TEST_CACHE/swiftshader
  [ -r "$dir/vk_swiftshader_icd.json" ] && [ -r "$dir/libvk_swiftshader.so" ] &&
    printf '%s\n' "$dir/vk_swiftshader_icd.json"
}

_unpack_swiftshader() {
  _swiftshader_icd >/dev/null && return 0
  local dir=$FATHOM_TEST_CACHE/swiftshader work file
  mkdir -p "$FATHOM_TEST_CACHE"
  work=$(mktemp -d "$FATHOM_TEST_CACHE/unpack.XXXXXX")
  # apt fetches as its own user, who may not enter this folder: hence the
  # option, which keeps it from warning about that.
  if (cd "$work" && apt-get download -q -o APT::Sandbox::User=root chromium-common >&2 &&
    dpkg-deb -x chromium-common_*.deb files); then
    mkdir -p "$work/out"
    for file in libvk_swiftshader.so vk_swiftshader_icd.json; do
      find "$work/files" -name "$file" -type f -exec cp {} "$work/out/" \;
    done
    if [ -r "$work/out/libvk_swiftshader.so" ] && [ -r "$work/out/vk_swiftshader_icd.json" ]; then
      rm -rf "$dir"
      mv "$work/out" "$dir"
    else
      _say "adapters: chromium-common has no SwiftShader any more"
    fi
  fi
  rm -rf "$work"
  _swiftshader_icd >/dev/null
}

_matrices_icd() {
  local dir=$FATHOM_TEST_CACHE/mesa-matrices
  [ -r "$dir/lvp_icd.json" ] && [ -x "$dir/loader" ] && printf '%s\n' "$dir/lvp_icd.json"
}

# Has apt work out what a later Debian's Mesa needs, apart from all that this
# machine has installed or knows, and unpacks it.
_unpack_matrices() {
  _matrices_icd >/dev/null && return 0
  local dir=$FATHOM_TEST_CACHE/mesa-matrices work codename package driver
  local suites="$MATRICES_RELEASE $MATRICES_RELEASE-backports"
  codename=$(. /etc/os-release && printf %s "${VERSION_CODENAME:-}")
  mkdir -p "$FATHOM_TEST_CACHE"
  work=$(mktemp -d "$FATHOM_TEST_CACHE/unpack.XXXXXX")
  mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/out"
  touch "$work/status"
  local apt=(apt-get -q -o "Dir::Etc::sourcelist=$work/apt.sources" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State=$work/state" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache"
    -o APT::Sandbox::User=root)
  if _backports_entry "$suites" "$codename" >"$work/apt.sources" &&
    "${apt[@]}" -o APT::Update::Error-Mode=any update >&2 &&
    "${apt[@]}" install -y --no-install-recommends --download-only \
      -t "$MATRICES_RELEASE-backports" mesa-vulkan-drivers >&2; then
    for package in "$work"/cache/archives/*.deb; do
      dpkg-deb -x "$package" "$work/files"
    done
    driver=$(find "$work/files/usr/lib" -name libvulkan_lvp.so)
    if [ -r "$driver" ]; then
      # The libraries next to it are what it loads; drivers of hardware are large.
      find "$(dirname "$driver")" -name 'libvulkan_*.so' ! -name libvulkan_lvp.so -delete
      mv "$(dirname "$driver")" "$work/out/lib"
      cp -L "$(find "$work/out/lib" -maxdepth 1 -name 'ld-linux-*.so.*' | head -n 1)" "$work/out/loader"
      sed "s#\"library_path\": *\"[^\"]*\"#\"library_path\": \"$dir/lib/libvulkan_lvp.so\"#" \
        "$work"/files/usr/share/vulkan/icd.d/lvp_icd*.json >"$work/out/lvp_icd.json"
      rm -rf "$dir"
      mv "$work/out" "$dir"
    fi
  fi
  rm -rf "$work"
  _matrices_icd >/dev/null
}

adapters_install() {
  if ! _is_debian || ! command -v apt-get >/dev/null; then
    _say "adapters: not Debian; using the Vulkan drivers that are there"
    return 0
  fi
  local missing=() package
  for package in libvulkan1 vulkan-tools; do
    _installed "$package" || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ] || ! _lavapipe_icd >/dev/null || ! _swiftshader_icd >/dev/null ||
    dpkg --compare-versions "$(_version_of mesa-vulkan-drivers)" lt "$MESA_WANTED"; then
    _as_root apt-get update -q >&2 || _say "adapters: apt-get update failed; going on with what apt knows"
  fi
  if [ ${#missing[@]} -gt 0 ]; then
    _apt_install "${missing[@]}"
  fi
  _install_lavapipe
  _unpack_swiftshader || _say "adapters: SwiftShader could not be unpacked"
  _unpack_matrices || _say "adapters: Mesa of $MATRICES_RELEASE-backports could not be unpacked"
}

_lavapipe_icd() {
  local file
  for file in /usr/share/vulkan/icd.d/lvp_icd*.json /etc/vulkan/icd.d/lvp_icd*.json; do
    if [ -r "$file" ]; then
      printf '%s\n' "$file"
      return 0
    fi
  done
  return 1
}

_lavapipe_bits() {
  case $1 in
    lavapipe4) echo 128 ;;
    lavapipe16) echo 512 ;;
    *) echo 256 ;;
  esac
}

adapter_skip_reason() {
  case $1 in
    swiftshader)
      if ! _swiftshader_icd >/dev/null; then echo "no SwiftShader"; return 0; fi
      ;;
    matrices)
      if ! _matrices_icd >/dev/null; then echo "no lavapipe with matrices"; return 0; fi
      ;;
    lavapipe4 | lavapipe8 | lavapipe16 | core)
      if ! _lavapipe_icd >/dev/null; then echo "no lavapipe"; return 0; fi
      if [ "$1" = lavapipe16 ] && ! grep -qw avx512f /proc/cpuinfo; then
        echo "no AVX-512"; return 0
      fi
      ;;
    *) echo "no adapter of this name"; return 0 ;;
  esac
  return 1
}

adapter_env() {
  local icd host dir=$FATHOM_TEST_CACHE/mesa-matrices
  case $1 in
    swiftshader) icd=$(_swiftshader_icd) ;;
    matrices) icd=$(_matrices_icd) ;;
    *) icd=$(_lavapipe_icd) ;;
  esac || return 1
  # Loaders before 1.3.207 know only the second name.
  printf '%s\n' "VK_DRIVER_FILES=$icd" "VK_ICD_FILENAMES=$icd"
  case $1 in
    lavapipe* | core)
      # Mesa keys its cache of compiled shaders by everything but the width.
      printf 'LP_NATIVE_VECTOR_WIDTH=%s\n' "$(_lavapipe_bits "$1")"
      printf 'MESA_SHADER_CACHE_DIR=%s\n' "$FATHOM_TEST_CACHE/mesa-$(_lavapipe_bits "$1")"
      ;;
  esac
  case $1 in
    core) echo FATHOM_TIER=core ;;
    matrices)
      host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
      printf 'CARGO_TARGET_%s_RUNNER=%s --library-path %s\n' "$host" "$dir/loader" "$dir/lib"
      printf '%s\n' FATHOM_TIER=matrices LP_NATIVE_VECTOR_WIDTH=256
      printf 'MESA_SHADER_CACHE_DIR=%s\n' "$FATHOM_TEST_CACHE/mesa-matrices-cache"
      ;;
  esac
}

adapter_describe() {
  local vars
  # The system's vulkaninfo can't load it.
  if [ "$1" = matrices ]; then echo "lavapipe of $MATRICES_RELEASE-backports"; return 0; fi
  command -v vulkaninfo >/dev/null || { echo "(vulkaninfo is not installed)"; return 0; }
  mapfile -t vars < <(adapter_env "$1")
  env -u DISPLAY -u WAYLAND_DISPLAY "${vars[@]}" vulkaninfo 2>/dev/null | awk -F ' = ' '
    /^[ \t]*deviceName / && !name { name = $2 }
    /^[ \t]*driverInfo / && !info { info = $2 }
    /^[ \t]*subgroupSize / && !width { width = $2 }
    END { if (!name) exit 1; printf "%s%s; subgroups of %s\n", name, (info ? "; " info : ""), width }'
}
