#pragma once

#include <utility>
#include <variant>

namespace arancini {

// Tags an error so that Result<T, E> also works when T and E are the same type.
template <class E>
struct Err {
  E value;
};
template <class E>
Err(E) -> Err<E>;

// A value or an error; parsers and start-up code return it, the hot path uses small enums instead.
// Accessing the wrong alternative aborts (std::get throws, and noexcept callers terminate).
template <class T, class E>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Err<E> error) : state_(std::in_place_index<1>, std::move(error.value)) {}

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  [[nodiscard]] T& value() & { return std::get<0>(state_); }
  [[nodiscard]] const T& value() const& { return std::get<0>(state_); }
  [[nodiscard]] T&& value() && { return std::get<0>(std::move(state_)); }
  [[nodiscard]] const E& error() const { return std::get<1>(state_); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }

 private:
  std::variant<T, E> state_;
};

}  // namespace arancini
