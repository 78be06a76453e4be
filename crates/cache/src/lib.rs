//! Answers kept for equal requests.
