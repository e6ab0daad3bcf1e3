// A client of `/ws` as an application would have one: it comes back by itself, from where it was.

/**
 * Listens at a `/ws` URL with topics in it. `Socket` is a WebSocket class; `tell` gets one object per thing seen. In a
 * browser it runs as text, so it uses nothing from around it.
 */
export function listen(Socket, url, tell) {
  let last = null;
  let socket = null;
  let closed = false;

  function heard({ sub, subscribed, events, gap, ...other }) {
    if (subscribed) {
      last = subscribed.cursor;
      tell({ open: true });
    }
    if (gap) tell({ id: last ?? "", event: "tidings.gap", data: JSON.stringify(gap) });
    for (const { id, event, data } of events ?? []) {
      last = id;
      tell({ id, event: event ?? "message", data });
    }
    if (other.published) tell({ id: other.published.id, event: "published", data: other.ref });
    if (other.error) tell({ id: "", event: "refused", data: JSON.stringify(other) });
  }

  function open() {
    const here = new URL(url);
    if (last !== null) here.searchParams.set("last_event_id", last);
    socket = new Socket(here.href, "tidings.v1");
    socket.onmessage = ({ data }) => heard(JSON.parse(data));
    // A close follows, which says as much.
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => {
      tell({ id: String(code), event: "close", data: reason });
      tell({ lost: true });
      if (closed) return;
      const retry = /^retry=(\d+)$/.exec(reason);
      setTimeout(open, retry ? Number(retry[1]) : 100);
    };
  }

  open();
  return {
    publish: (ref, event) => socket.send(JSON.stringify({ ref, publish: event })),
    close: () => {
      closed = true;
      socket.close();
    },
  };
}
