//! Accepting connections, keeping their limits, and leaving in good order.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::service::{Answers, answer};
use super::watch::{Activity, Order, Watch, Watched};
use super::{HttpConfig, Shared, routes};
use crate::app::OpenConnection;
use crate::workers::Workers;

type Builder = auto::Builder<TokioExecutor>;

/// How long accepting pauses where the process is out of files or memory: trying at once would only
/// burn the processor that is needed to finish what is open.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the head of a request may take once the server is leaving: what is not whole yet was not
/// promised an answer, and must not hold the end up.
const LAST_HEAD: Duration = Duration::from_millis(500);

/// How often an HTTP/2 client must show that it is alive.
const PING: Duration = Duration::from_secs(20);

pub(super) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    shutdown: impl Future<Output = ()>,
) {
    let watch = Arc::new(Watch::default());
    let tracker = TaskTracker::new();
    let workers = Workers::start("http");
    {
        let connections = Connections { workers: &workers, tracker: &tracker };
        let accepting = accept(listener, Arc::clone(&shared), Arc::clone(&watch), connections);
        let mut accepting = pin!(accepting);
        let mut watching = pin!(watch.run(&shared.config));
        let mut shutdown = pin!(shutdown);
        // Leaving this block drops the listener.
        tokio::select! {
            () = &mut shutdown => {}
            () = &mut accepting => {}
            () = &mut watching => {}
        }
    }
    shared.app.start_draining();
    watch.order_all(Order::Finish);
    tracker.close();
    let head_timeout = shared.config.head_timeout.min(LAST_HEAD);
    let leaving = HttpConfig { head_timeout, ..shared.config.clone() };
    let drained = async {
        tokio::select! {
            () = tracker.wait() => {}
            () = watch.run(&leaving) => {}
        }
    };
    if tokio::time::timeout(shared.config.drain_timeout, drained).await.is_err() {
        tracing::warn!(
            connections = tracker.len(),
            "closing connections whose requests did not finish in time"
        );
        watch.order_all(Order::Drop);
        tracker.wait().await;
    }
}

/// Where connections run, and how many there are.
struct Connections<'a> {
    workers: &'a Workers,
    tracker: &'a TaskTracker,
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    watch: Arc<Watch>,
    connections: Connections<'_>,
) {
    let builder = Arc::new(builder(&shared.config));
    let permits =
        Arc::new(Semaphore::new(shared.config.max_connections.min(Semaphore::MAX_PERMITS)));
    let answers = Arc::new(Answers { routes: routes::routes(Arc::clone(&shared)), shared });
    loop {
        // Without a permit nothing is accepted: the kernel's backlog is the queue.
        let permit = Arc::clone(&permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                refused(&error).await;
                continue;
            }
        };
        // A client that went away at once is noticed by the first read.
        let _ = stream.set_nodelay(true);
        // Off this runtime, to be registered with the one of its thread.
        let Ok(stream) = stream.into_std() else { continue };
        let seat = connections.workers.seat();
        let (builder, answers) = (Arc::clone(&builder), Arc::clone(&answers));
        let watched = watch.watch();
        let handle = seat.handle().clone();
        let serve = async move {
            let _held = (permit, seat);
            if let Ok(stream) = TcpStream::from_std(stream) {
                connection(stream, builder, answers, watched).await;
            }
        };
        handle.spawn(connections.tracker.track_future(serve));
    }
}

/// Waits after a connection could not be accepted, where that is the process's own trouble.
async fn refused(error: &io::Error) {
    let clients = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    );
    if !clients {
        tracing::error!(error = %error, "a connection could not be accepted");
        tokio::time::sleep(PAUSE).await;
    }
}

fn builder(config: &HttpConfig) -> Builder {
    let head = config.max_head_bytes;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Our own watch keeps the time limit of heads, without a timer for each request.
    builder.http1().header_read_timeout(None).max_buf_size(head).timer(TokioTimer::new());
    builder
        .http2()
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .timer(TokioTimer::new());
    builder
}

async fn connection(
    stream: TcpStream,
    builder: Arc<Builder>,
    answers: Arc<Answers>,
    watched: Watched,
) {
    let activity = Arc::clone(&watched.activity);
    let open = OpenConnection::new(Arc::clone(&answers.shared.app));
    let io = TokioIo::new(Observed { stream, activity: Arc::clone(&activity), lingering: false });
    let service_activity = Arc::clone(&activity);
    let service = service_fn(move |request| {
        answer(Arc::clone(&answers), Arc::clone(&service_activity), request)
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut finishing = false;
    let ended = poll_fn(|context| {
        match activity.order(context.waker()) {
            Order::Stay => {}
            Order::Finish if finishing => {}
            Order::Finish => {
                finishing = true;
                connection.as_mut().graceful_shutdown();
            }
            Order::Drop => return Poll::Ready(Ok(())),
        }
        connection.as_mut().poll(context)
    });
    if let Err(error) = ended.await {
        // Clients break off and speak nonsense as they like; whoever needs to see it can.
        tracing::debug!(error, "a connection ended with an error");
    }
    drop((open, watched));
}

/// A stream that tells what passes over it.
struct Observed {
    stream: TcpStream,
    activity: Arc<Activity>,
    lingering: bool,
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if buffer.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Observed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        if let Ok(bytes) = written {
            self.activity.sent(bytes);
        }
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices));
        if let Ok(bytes) = written {
            self.activity.sent(bytes);
        }
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Closes the way to the client. Where the client may still be sending, what it sends is read and
    /// thrown away until it stops: a socket that is closed with bytes unread resets the connection,
    /// and with it goes the answer that the client has not read yet. The watch ends this in time.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingering {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.lingering = self.activity.close();
        }
        while self.lingering {
            let mut scratch = [0; 8 << 10];
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            self.lingering = read.is_ok() && !buffer.filled().is_empty();
        }
        Poll::Ready(Ok(()))
    }
}
