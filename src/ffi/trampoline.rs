/// Makes an `extern "C"` function that hands C's calls to a safe handler.
///
/// ```text
/// [docs] [pub] fn NAME(ARGUMENT: TYPE, ...) [-> TYPE];
/// |VALUE: TYPE = USER_DATA_ARGUMENT [, NAME: TYPE = VIEW(ARGUMENT, ...)]*| { HANDLER }
/// [panicked CONSTANT, swallowed CONSTANT]
/// ```
///
/// The first part is C's signature, with the user data anywhere. The second is what the handler sees:
/// a reference to what the [`UserData`](crate::ffi::UserData) holds, then any number of views, each
/// one of [`bytes`](crate::ffi::bytes), [`c_str`](crate::ffi::c_str),
/// [`reference`](crate::ffi::reference) and [`value`](crate::ffi::value), made of C's arguments. They live
/// until the handler returns. The third is what C gets when the handler panicked, and when the call
/// was swallowed; left out exactly if C expects nothing.
///
/// The function is `unsafe` to call: C promises that its pointers are as its documentation says. It
/// never unwinds, nor can `pthread_cancel` act inside it. See [`ffi`](crate::ffi).
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
#[macro_export]
macro_rules! trampoline {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $arg_type:ty),* $(,)?);
        |$user:ident: $user_type:ty = $user_data:ident
            $(, $seen:ident: $seen_type:ty = $view:ident($($part:ident),+))* $(,)?| $body:block
    ) => {
        $crate::trampoline! {
            $(#[$meta])*
            $vis fn $name($($arg: $arg_type),*) -> ();
            |$user: $user_type = $user_data $(, $seen: $seen_type = $view($($part),+))*| $body
            panicked (), swallowed ()
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $arg_type:ty),* $(,)?) -> $answer:ty;
        |$user:ident: $user_type:ty = $user_data:ident
            $(, $seen:ident: $seen_type:ty = $view:ident($($part:ident),+))* $(,)?| $body:block
        panicked $panicked:expr, swallowed $swallowed:expr $(,)?
    ) => {
        $(#[$meta])*
        #[doc = ""]
        #[doc = "# Safety"]
        #[doc = ""]
        #[doc = "For C to call: its pointers are NULL or as the library's documentation says."]
        #[allow(unsafe_code, unused_unsafe, clippy::undocumented_unsafe_blocks)]
        $vis unsafe extern "C" fn $name($($arg: $arg_type),*) -> $answer {
            const PANICKED: $answer = $panicked;
            const SWALLOWED: $answer = $swallowed;
            #[deny(unsafe_op_in_unsafe_fn)]
            fn handle($user: &$user_type $(, $seen: $seen_type)*) -> $answer $body
            $crate::ffi::enter::<$user_type, $answer>($user_data, SWALLOWED, PANICKED, |user| {
                // SAFETY: the caller of this function promises what the views ask for, and `handle`
                // can't keep what it borrows.
                ::core::result::Result::Ok(handle(
                    user
                    $(, unsafe { $crate::ffi::$view($($part),+) }?)*
                ))
            })
        }
    };
}
