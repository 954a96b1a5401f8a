#!/bin/sh
# docker run … task=Ant algo=hepo     trains with these settings
# docker run … doctor                 is hepo-isaac doctor, and so for every command of it
# docker run … python script.py       is what it says, for python and for shells
set -eu
case "${1-}" in
    "") set -- hepo-isaac --help ;;
    -h | --help | --version) set -- hepo-isaac "$@" ;;
    -* | *=*) set -- hepo-isaac train "$@" ;;
    python | python3 | pip | sh | bash) ;;
    *) set -- hepo-isaac "$@" ;;
esac
exec "$@"
