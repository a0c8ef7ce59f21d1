#!/bin/sh
# Without Docker: the RUN steps of infra/Dockerfile with the files that it copies, in an empty virtual environment.
#     replay_image.sh FOLDER [PYTHON]
set -eu
folder=$1
python=${2:-python3.11}
root=$(cd "$(dirname "$0")/.." && pwd)
[ ! -e "$folder" ] || { echo "error: $folder exists; name a new folder" >&2; exit 2; }
mkdir -p "$folder/image"
sed -n 's/^COPY --chown=[^ ]* \(.*\) [^ ]*$/\1/p' "$root/infra/Dockerfile" | tr ' ' '\n' | while read -r name; do
    cp -r "$root/$name" "$folder/image/"
done
"$python" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
cd "$folder/image"
sed -n 's/^RUN //p' "$root/infra/Dockerfile" | while read -r step; do
    echo "$step"
    sh -ec "$step"
done
