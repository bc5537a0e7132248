#!/bin/sh
# A command for a target of kind exec: it keeps certificates in a folder, and says what
# is live there. Put what your service needs into `publish`. It needs jq.
#
#   commands.yaml:  cdn: [/usr/local/lib/certfarm/exec-target.sh, /var/lib/cdn]
#   farm.yaml:      {kind: exec, options: {command: cdn, place: shop, deliver: true}, endpoints: …}
#
# Certfarm adds one word, the verb, and writes a line of JSON to standard input. The
# answer is the last line that is printed; all else is shown where something fails.
# Every call may come twice.
set -eu
umask 077
folder=$1 verb=$2
IFS= read -r request

publish() { # FOLDER of the version that is to be live, or "placeholder"
    printf '%s\n' "$1" > live.new
    mv live.new live
}

no() {
    jq -nc --arg why "$1" '{ok: false, error: $why}'
    exit 0
}

eval "$(printf '%s' "$request" | jq -r '@sh "place=\(.place // "default") note=\(.note // "")
    leaves=\([.leaves[]?.fingerprint] | tojson) chain=\([.leaves[]?.chain // empty] | add) key=\([.leaves[]?.key // empty] | add)"')"
case $place in *[!A-Za-z0-9._-]* | .*) no "the place $place is no name" ;; esac
case $note in *[!A-Za-z0-9]*) no "the note is not one of mine" ;; esac
[ -d "$folder/$place" ] || mkdir -p "$folder/$place"
cd "$folder/$place"
live=
[ ! -f live ] || read -r live < live

kept() { # whether a version that is staged goes back to this one
    grep -qsxF "$1" ./*/before
}

case $verb in
inspect)
    case $live in
    '') echo '{"ok": true}' ;;
    placeholder) echo '{"ok": true, "placeholder": true}' ;;
    *)
        read -r leaves < "$live/leaves"
        printf '{"ok": true, "leaves": %s}\n' "$leaves" ;;
    esac
    exit ;;
stage)
    note=$(mktemp -d ./XXXXXXXXXX)
    printf '%s\n' "$leaves" > "$note/leaves"
    printf '%s\n' "$chain" > "$note/chain.pem"
    printf '%s\n' "$key" > "$note/key.pem"
    printf '%s\n' "$live" > "$note/before"
    printf '{"ok": true, "note": "%s"}\n' "${note#./}"
    exit ;;
activate)
    [ -d "$note" ] || no "what was staged is gone"
    publish "$note" ;;
restore)
    [ -f "$note/before" ] || no "what was live before is gone"
    read -r before < "$note/before"
    if [ -n "$before" ]; then publish "$before"; elif [ -n "$live" ]; then publish placeholder; fi ;;
discard)
    if [ -d "$note" ]; then
        before=
        [ ! -f "$note/before" ] || read -r before < "$note/before"
        rm -f "$note/before"
        for old in "$note" "$before"; do
            case $old in '' | placeholder | "$live") continue ;; esac
            kept "$old" || rm -rf "./$old"
        done
    fi ;;
*)
    no "there is no verb $verb" ;;
esac
echo '{"ok": true}'
