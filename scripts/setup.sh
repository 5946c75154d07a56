#!/usr/bin/env bash
# Makes this checkout ready to run: system packages, .venv, Python packages.
#
#   scripts/setup.sh demo|listen|test|train|export
#
# Each profile brings what its make targets need and nothing else. A second run finds the stamp of
# the first and returns at once. Variables:
#   PYTHON       the interpreter to build .venv with (default: the first suitable one found)
#   TORCH_INDEX  package index that torch alone is taken from, for example
#                https://download.pytorch.org/whl/cpu (spares the CUDA libraries)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
PROFILE=${1:-}

say() { printf '%s\n' "$*" >&2; }
die() { say "setup: $*"; exit 2; }

case "$PROFILE" in
    demo) EXTRAS=demo,play ;;
    listen) EXTRAS=demo,torch ;;
    test) EXTRAS=demo,dev,docs,export,metrics,mqtt,mucodec,play,radio,socks,train ;;
    train) EXTRAS=demo,train ;;
    export) EXTRAS=export ;;
    *) die "say which profile to set up: scripts/setup.sh demo|listen|test|train|export" ;;
esac

# ---------------------------------------------------------------- system packages

has_library() {
    { ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null; } | grep -F "$1" >/dev/null
}
has_alsa_plugin() {
    local file
    for file in /usr/lib/*/alsa-lib/"$1" /usr/lib/alsa-lib/"$1" /usr/lib64/alsa-lib/"$1"; do
        [ -e "$file" ] && return 0
    done
    return 1
}
has_chromium() {
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
        command -v google-chrome >/dev/null
}
# Debian keeps servers in /usr/sbin, which is not on everybody's PATH.
has_program() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }
has_font() { [ -e "/usr/share/sounds/sf2/$1" ] || [ -e "/usr/share/sounds/sf3/$1" ]; }

# Prints the Debian names of the packages that this profile needs and the machine lacks. What is
# probed is the thing itself, so that it does not matter how it came there.
missing_packages() {
    [ "$(uname -s)" = Linux ] || return 0 # elsewhere the wheels bring PortAudio along
    case ",$EXTRAS," in
        *,play,*) has_library libportaudio.so.2 || echo libportaudio2 ;;
    esac
    if [ "$PROFILE" = test ]; then
        command -v ffmpeg >/dev/null || echo ffmpeg
        command -v c2enc >/dev/null || echo codec2
        command -v pulseaudio >/dev/null || echo pulseaudio
        command -v pactl >/dev/null || echo pulseaudio-utils
        has_alsa_plugin libasound_module_pcm_pulse.so || echo libasound2-plugins
        has_chromium || echo chromium
        command -v chromedriver >/dev/null || echo chromium-driver
        command -v firefox-esr >/dev/null || command -v firefox >/dev/null || echo firefox-esr
        has_program mosquitto && has_program mosquitto_passwd || echo mosquitto
        has_program nginx || echo nginx
        command -v mpv >/dev/null || echo mpv
        command -v cvlc >/dev/null || echo vlc-bin vlc-plugin-base
    fi
    if [ "$PROFILE" = train ]; then
        command -v fluidsynth >/dev/null || echo fluidsynth
        command -v ffmpeg >/dev/null || echo ffmpeg
        has_font FluidR3_GM.sf2 || echo fluid-soundfont-gm
        has_font MuseScore_General_Full.sf3 || has_font MuseScore_General.sf3 ||
            echo musescore-general-soundfont
    fi
}

# Installs the packages named, one index update per run of this script; false where that is not
# possible (not Debian, not root, no network).
apt_updated=no
apt_install() {
    command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || return 1
    say "setup: installing system packages: $*"
    if [ "$apt_updated" = no ]; then
        apt_updated=yes
        DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || true # stale lists may do
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

install_system_packages() {
    local wanted
    wanted=$(missing_packages | tr '\n' ' ')
    wanted=${wanted% }
    [ -n "$wanted" ] || return 0
    # shellcheck disable=SC2086 # one word per package is meant
    apt_install $wanted || true
    wanted=$(missing_packages | tr '\n' ' ')
    wanted=${wanted% }
    [ -z "$wanted" ] || say "setup: going on without the system packages ${wanted// /, }," \
        "which whatever needs them will miss; on Debian or Ubuntu run: sudo apt-get install $wanted"
}

# ---------------------------------------------------------------- the virtual environment

suitable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        suitable "$PYTHON" || die "PYTHON=$PYTHON is not a Python of version 3.11 or newer."
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if suitable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    local python version
    if ! python=$(find_python); then
        [ -z "${PYTHON:-}" ] || exit 2
        apt_install python3 python3-venv && python=$(find_python) ||
            die "no Python of version 3.11 or newer found; install one (Debian: python3-venv)" \
                "or name it: make PYTHON=/path/to/python3"
    fi
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt_install "python$version-venv" || apt_install python3-venv ||
            die "$python lacks the modules venv and ensurepip;" \
                "on Debian or Ubuntu run: sudo apt-get install python3-venv"
    fi
    say "setup: making $VENV with $("$python" --version 2>&1)"
    "$python" -m venv --clear "$VENV" || die "$python could not make $VENV (see above)."
}

install_python_packages() {
    local stamp="$VENV/.stamp-$PROFILE" wanted quiet=--quiet
    [ -t 2 ] && quiet=--no-input # on a terminal pip's progress bars are worth having
    wanted=$(cat pyproject.toml scripts/setup.sh - <<<"${TORCH_INDEX:-}" | cksum)
    [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return 0
    say "setup: installing the Python packages into $VENV (once)"
    if [ -n "${TORCH_INDEX:-}" ] && [ "$PROFILE" != demo ]; then # which needs no torch
        "$VENV/bin/python" -m pip install $quiet --index-url "$TORCH_INDEX" 'torch>=2.6,<2.14' >&2 ||
            die "pip could not install torch from $TORCH_INDEX (see above)."
    fi
    "$VENV/bin/python" -m pip install $quiet --editable ".[$EXTRAS]" >&2 ||
        die "pip could not install the Python packages (see above); is the package index reachable?"
    printf '%s\n' "$wanted" >"$stamp"
}

# Two makes at once must not build the same environment; where there is no flock, they just may.
if command -v flock >/dev/null; then
    exec 9>.setup.lock
    flock 9
fi
install_system_packages
suitable "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
install_python_packages
