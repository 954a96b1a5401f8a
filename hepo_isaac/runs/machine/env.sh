# Source this file in bash or zsh:  . FOLDER/env      It finds its own folder; moving the folder is fine.
if [ -n "${BASH_VERSION:-}" ]; then _hepo=${BASH_SOURCE[0]}; elif [ -n "${ZSH_VERSION:-}" ]; then _hepo=$0; else _hepo=./env; fi
HEPO_BUNDLE=$(CDPATH='' cd -- "$(dirname -- "$_hepo")" && pwd)
if [ ! -d "$HEPO_BUNDLE/site/hepo_isaac" ]; then
  echo "error: $HEPO_BUNDLE holds no bundle; source its env in bash or zsh, or in its folder" >&2
else
  export HEPO_BUNDLE
  case ":${PYTHONPATH:-}:" in
    *":$HEPO_BUNDLE/site:"*) ;;
    *) export PYTHONPATH="$HEPO_BUNDLE/site${PYTHONPATH:+:$PYTHONPATH}" ;;
  esac
  export PYTHONUNBUFFERED=1
  WARP_CACHE_PATH=$HEPO_BUNDLE/kernels
  if [ ! -w "$WARP_CACHE_PATH" ]; then
    # Warp writes kernels that nobody compiled beforehand, so it gets a copy; modules are not worth one.
    export PYTHONDONTWRITEBYTECODE=1
    WARP_CACHE_PATH=${TMPDIR:-/tmp}/hepo-isaac-$(id -u)/@ID@
    if [ ! -d "$WARP_CACHE_PATH" ]; then
      mkdir -p "$WARP_CACHE_PATH.$$" && cp -r "$HEPO_BUNDLE/kernels/." "$WARP_CACHE_PATH.$$" &&
        chmod -R u+w "$WARP_CACHE_PATH.$$" && { mv -T "$WARP_CACHE_PATH.$$" "$WARP_CACHE_PATH" 2>/dev/null ||
        rm -rf "$WARP_CACHE_PATH.$$"; } # another job was first
    fi
  fi
  export WARP_CACHE_PATH
  python3 -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' @PYTHON@ 2>/dev/null ||
    echo "warning: this bundle is for Python @PYTHON@, and python3 here is $(python3 -V 2>&1); load Python @PYTHON@" >&2
fi
unset _hepo
