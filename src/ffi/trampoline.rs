/// Makes an `extern "C"` function that hands C's calls to a safe handler.
///
/// ```text
/// [docs] [pub] [extern "ABI"] fn NAME(ARGUMENT: TYPE, ...) [-> TYPE];
/// |VALUE: TYPE = USER_DATA [, NAME: TYPE = VIEW(ARGUMENT, ...)]*| { HANDLER }
/// [panicked CONSTANT, swallowed CONSTANT]
/// ```
///
/// The first part is C's signature, with the user data anywhere.
///
/// The second is what the handler sees. First a reference to what the
/// [`UserData`](crate::ffi::UserData) holds. `USER_DATA` is the argument that it comes in, of any pointer
/// type or `usize`, or an expression in parentheses for one that comes in a struct or a union. Then any
/// number of views, made by the methods of [`Call`](crate::ffi::Call) from expressions of C's arguments and
/// of the views before. They live until the handler returns, whatever their types say. Arguments without a
/// view are seen as they are.
///
/// The third is what C gets when the handler panicked, and when the call was swallowed. It is left out
/// exactly if C expects nothing.
///
/// The function is `unsafe` to call: C promises that its pointers are NULL or lead to what the views over
/// them say. It never unwinds, nor can `pthread_cancel` act inside it. See [`ffi`](crate::ffi).
///
/// Inside an `impl`, it makes an associated function. In a generic one, its type parameters may be used.
///
/// # Examples
///
/// ```
/// use callbridge::Sender;
/// use callbridge::ffi::UserData;
/// use std::ffi::{c_int, c_void};
///
/// const GO_ON: c_int = 0;
/// const STOP: c_int = 1;
///
/// callbridge::trampoline! {
///     /// `int (*on_frame)(const uint8_t *data, size_t len, void *user_data)`
///     fn on_frame(data: *const u8, len: usize, user_data: *mut c_void) -> c_int;
///     |sender: Sender<Vec<u8>> = user_data, frame: &[u8] = bytes(data, len)| {
///         match sender.send(frame.to_vec()) {
///             Ok(_) => GO_ON,
///             Err(_) => STOP,
///         }
///     }
///     panicked STOP, swallowed GO_ON
/// }
///
/// let (sender, frames) = callbridge::channel::<Vec<u8>>(16);
/// let registration = UserData::with_panic_hook(sender, |sender, message| {
///     sender.fail(message);
/// });
/// // SAFETY: the pointer and the length are those of one slice.
/// let answer = unsafe { on_frame(b"abc".as_ptr(), 3, registration.as_ptr()) };
/// assert_eq!((answer, frames.len()), (GO_ON, 1));
/// ```
///
/// The user data in a union, and a handler of any type:
///
/// ```
/// use callbridge::ffi::UserData;
/// use std::ffi::{c_int, c_void};
/// use std::marker::PhantomData;
///
/// /// `union sigval`
/// #[derive(Clone, Copy)]
/// #[repr(C)]
/// pub union Value {
///     int: c_int,
///     ptr: *mut c_void,
/// }
///
/// pub struct Timer<F>(PhantomData<F>);
///
/// impl<F: Fn() + Send + Sync + 'static> Timer<F> {
///     callbridge::trampoline! {
///         /// `void (*expired)(union sigval value)`
///         pub extern "C" fn expired(value: Value);
///         // SAFETY: it was registered with the pointer.
///         |handler: F = (unsafe { value.ptr })| { handler() }
///     }
/// }
///
/// fn function_of<F: Fn() + Send + Sync + 'static>(_: &UserData<F>) -> unsafe extern "C" fn(Value) {
///     Timer::<F>::expired
/// }
///
/// let registration = UserData::new(|| println!("expired"));
/// let expired = function_of(&registration);
/// // SAFETY: the union has the pointer.
/// unsafe { expired(Value { ptr: registration.as_ptr() }) };
/// assert_eq!(registration.stats().calls, 1);
/// ```
#[macro_export]
macro_rules! trampoline {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $args:tt $(-> $answer:ty)?; $($rest:tt)*
    ) => {
        $crate::trampoline! {
            $(#[$meta])* $vis extern "C" fn $name $args $(-> $answer)?; $($rest)*
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis extern $abi:literal fn $name:ident $args:tt; $($rest:tt)*
    ) => {
        $crate::trampoline! {
            $(#[$meta])* $vis extern $abi fn $name $args -> (); $($rest)* panicked (), swallowed ()
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis extern $abi:literal fn $name:ident($($arg:ident: $arg_type:ty),* $(,)?) -> $answer:ty;
        |$value:ident: $value_type:ty = $($user_data:ident)? $(($pointer:expr))?
            $(, $seen:tt: $seen_type:ty = $view:tt $parts:tt)*| $handler:tt
        panicked $panicked:expr, swallowed $swallowed:expr $(,)?
    ) => {
        $(#[$meta])*
        #[doc = ""]
        #[doc = "# Safety"]
        #[doc = ""]
        #[doc = "For C to call: its pointers are NULL or as the library's documentation says."]
        #[deny(unsafe_op_in_unsafe_fn)]
        $vis unsafe extern $abi fn $name($($arg: $arg_type),*) -> $answer {
            $crate::ffi::enter::<$value_type, $answer>(
                $($user_data)? $($pointer)?,
                const { $swallowed },
                const { $panicked },
                |$value, call| {
                    $(
                        let $seen: $seen_type = match $crate::trampoline!(@ call $seen $view $parts) {
                            ::core::result::Result::Ok($seen) => $seen,
                            ::core::result::Result::Err(why) => {
                                return ::core::result::Result::Err(why);
                            }
                        };
                    )*
                    ::core::result::Result::Ok((|| -> $answer $handler)())
                },
            )
        }
    };
    // The same, with anything else behind the handler.
    (
        $(#[$meta:meta])*
        $vis:vis extern $abi:literal fn $name:ident $args:tt -> $answer:ty;
        |$value:ident: $value_type:ty = $($user_data:ident)? $(($pointer:expr))?
            $(, $seen:tt: $seen_type:ty = $view:tt $parts:tt)*| $handler:tt $($rest:tt)*
    ) => {
        ::core::compile_error! {
            "behind the handler stands `panicked CONSTANT, swallowed CONSTANT` if C expects an answer, else nothing"
        }
    };
    // Arguments are evaluated outside of `unsafe`. They and the views have names of the user's, matched
    // as `tt`, so that the compiler's errors point at the user's line.
    // SAFETY, of both: the caller of the function promises what the view asks for.
    (@ $call:ident $seen:tt $view:tt ($one:expr $(,)?)) => {{
        let $seen = $one;
        unsafe { $call.$view($seen) }
    }};
    (@ $call:ident $seen:tt $view:tt ($one:expr, $two:expr $(,)?)) => {{
        let ($seen, second) = ($one, $two);
        unsafe { $call.$view($seen, second) }
    }};
}
