#!/usr/bin/env bash
# Put a bundle of hepo-isaac together:  bash join.sh PART_FOLDER… TO       then:  . TO/env
# Run it again when more parts have arrived; parts that it has seen need not be there any more. Needs python3 >= 3.8.
set -euo pipefail
command -v python3 >/dev/null || { echo "error: no python3 on PATH; expected Python 3.8 or newer" >&2; exit 2; }
python3 -c 'import lzma, sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null ||
  { echo "error: $(python3 -V 2>&1) is older than 3.8 or has no module lzma; load another Python" >&2; exit 2; }
exec python3 - "$@" <<'PYTHON'
import hashlib, io, json, lzma, os, sys, tarfile, time


def fail(text):
    sys.exit("error: " + text)


def manifest_of(folder):
    try:
        with open(os.path.join(folder, "parts.json")) as file:
            return json.load(file)
    except OSError:
        fail("%s holds no parts.json; expected a folder that hepo-isaac bundle --max-part wrote" % folder)
    except ValueError:
        fail("%s/parts.json is damaged; copy that folder again" % folder)


def check(path, row, to=None):
    """Compare a part with the manifest, and copy it on the way."""
    found, size = hashlib.sha256(), 0
    with open(path, "rb") as file, open(to + ".new" if to else os.devnull, "wb") as copy:
        for block in iter(lambda: file.read(1 << 20), b""):
            found.update(block)
            size += len(block)
            copy.write(block)
    if size != row["bytes"] or found.hexdigest() != row["sha256"]:
        if to:
            os.remove(to + ".new")
        fail("%s is damaged: %d bytes, expected %d with another checksum; copy it again" % (path, size, row["bytes"]))
    if to:
        os.replace(to + ".new", to)


class Chain(io.RawIOBase):
    """Several files, read one after the other."""

    def __init__(self, paths):
        self.paths, self.file = list(paths), None

    def readable(self):
        return True

    def readinto(self, buffer):
        while True:
            if self.file is None:
                if not self.paths:
                    return 0
                self.file = open(self.paths.pop(0), "rb")
            count = self.file.readinto(buffer)
            if count:
                return count
            self.file.close()
            self.file = None


def extract(stream, member, path, sha256):
    """Write one file under its name when it is whole."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    found, left = hashlib.sha256(), member.size
    try:
        with open(path + ".part", "wb") as file:
            while left:
                block = stream.read(min(left, 1 << 20))
                if not block:
                    raise EOFError
                file.write(block)
                found.update(block)
                left -= len(block)
        if sha256 not in (None, found.hexdigest()):
            fail("%s came out with another checksum than it went in with; copy all parts again" % path)
        os.chmod(path + ".part", member.mode)
        os.utime(path + ".part", (member.mtime, member.mtime))
        os.replace(path + ".part", path)
    finally:
        if os.path.exists(path + ".part"):
            os.remove(path + ".part")


def is_there(path, member):
    try:
        stat = os.stat(path)
    except OSError:
        return False
    return stat.st_size == member.size and int(stat.st_mtime) == member.mtime


def unpack(paths, to, manifest):
    """Extract what is whole; returns whether that is everything."""
    began = said = time.time()
    done, count, last, mib = 0, 0, manifest["last"], manifest["bytes"] >> 20
    try:
        packed = lzma.open(io.BufferedReader(Chain(paths), 1 << 20))
        with tarfile.open(fileobj=packed, mode="r|") as tar:
            for member in tar:
                path = os.path.normpath(os.path.join(to, member.name))
                if not member.isfile() or not path.startswith(to + os.sep):
                    fail("the bundle has a member %s, which is no file inside it; make it anew" % member.name)
                if not is_there(path, member):
                    checksum = last["sha256"] if member.name == last["name"] else None
                    extract(tar.extractfile(member), member, path, checksum)
                done, count, now = done + member.size, count + 1, time.time()
                if now - said > 5:
                    said = now
                    left = (now - began) * (manifest["bytes"] / max(done, 1) - 1)
                    print("  unpacked %d of %d MiB, ETA %.0f s" % (done >> 20, mib, left), flush=True)
    except (EOFError, tarfile.ReadError):
        whole = False
    except lzma.LZMAError as error:
        fail("the compressed stream is damaged (%s); copy all parts again" % error)
    except OSError as error:
        fail("cannot write below %s: %s; expected %d MiB of room" % (to, error.strerror, mib))
    else:
        whole = done == manifest["bytes"]
    print("%d files, %d of %d MiB, %.1f s" % (count, done >> 20, mib, time.time() - began))
    return whole


def main(arguments):
    if len(arguments) < 2:
        fail("expected the folders of parts and then where to: bash join.sh a b hepo")
    folders, to = arguments[:-1], os.path.abspath(arguments[-1])
    manifests = [manifest_of(f) for f in folders]
    manifest, kept = manifests[0], os.path.join(to, ".parts")
    if any(m["id"] != manifest["id"] for m in manifests):
        fail("%s are parts of different bundles; expected one bundle's" % " and ".join(folders))
    mark = os.path.join(kept, "id")
    if os.path.exists(mark):
        with open(mark) as file:
            before = file.read().split()
        if before[0] != manifest["id"]:
            fail("%s holds another bundle; remove it or choose another folder" % to)
        if before[1:] == ["complete"]:
            return print("%s is complete already; next: . %s/env" % (to, to))
    elif os.path.isdir(to) and os.listdir(to):
        fail("%s is not empty and holds no bundle; expected a new or an empty folder" % to)
    os.makedirs(kept, exist_ok=True)
    with open(mark, "w") as file:
        file.write(manifest["id"])
    found = {}
    for row in manifest["parts"]:
        name = "bundle.tar.xz." + row["name"]
        for folder in [kept, *folders]:
            if row["name"] not in found and os.path.exists(os.path.join(folder, name)):
                found[row["name"]] = os.path.join(folder, name)
    missing = [row["name"] for row in manifest["parts"] if row["name"] not in found]
    for row in manifest["parts"]:
        path = found.get(row["name"])
        if path and os.path.dirname(path) != kept:
            copy = os.path.join(kept, os.path.basename(path)) if missing else None
            check(path, row, copy)  # kept until the rest is here: what was brought may be gone by then
            found[row["name"]] = copy or path
    paths = []
    for row in manifest["parts"]:
        if row["name"] not in found:
            break
        paths.append(found[row["name"]])
    whole = bool(paths) and unpack(paths, to, manifest)
    if missing:
        return print("%s waits for part %s; run join.sh again with it" % (to, " and part ".join(missing)))
    if not whole:
        fail("all parts are there and the stream ends too early; copy all parts again")
    for name in os.listdir(kept):
        if name != "id":
            os.remove(os.path.join(kept, name))
    with open(mark, "w") as file:
        file.write(manifest["id"] + " complete")
    print("%s is complete; next: . %s/env" % (to, to))


try:
    main(sys.argv[1:])
except OSError as error:
    fail("%s: %s" % (error.filename, error.strerror))
PYTHON
