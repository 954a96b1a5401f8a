#!/bin/sh
# Unpack the parts of Isaac Gym that a run needs: sh unpack_isaacgym.sh FOLDER_OF_THE_PACKAGE TARGET_FOLDER
set -eu
name=IsaacGym_Preview_4_Package.tar.gz
again="download Isaac Gym Preview 4 by hand from https://developer.nvidia.com/isaac-gym (free, with an NVIDIA account), \
put $name into the folder docker/ of this project and build again."

refuse() {
    echo "docker/$name $1: $again" >&2
    exit 1
}

[ -f "$1/$name" ] || refuse "is missing"
tar -xzf "$1/$name" -C "$2" --no-same-owner isaacgym/python isaacgym/assets ||
    refuse "is not NVIDIA's archive (an unfinished download, or a web page saved under its name)"
[ -f "$2/isaacgym/python/setup.py" ] || refuse "holds no isaacgym/python/setup.py"
chmod -R a+rX "$2/isaacgym"
