#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// Text for terminals of 80 columns.
namespace arancini::tools {

// "3.2M", "17k", "999".
std::string short_number(std::uint64_t n);
// "12s", "5m03s", "2h05m", "3d04h".
std::string short_duration(std::uint64_t seconds);
// `text` in at most `width` columns; what is cut is marked by "~". Counts code points.
std::string fit(const std::string& text, std::size_t width);

// The words of `text` in lines of at most `width` bytes (a longer word stands alone), each indented and
// ended.
std::string wrapped(const std::string& text, std::size_t indent, std::size_t width);

// Left-aligned columns two blanks apart, each as wide as its widest cell but not wider than its limit.
class TextTable {
 public:
  struct Column {
    std::string title;
    std::size_t limit;
    bool right = false;
  };
  explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  // A line for the titles and one for each row.
  [[nodiscard]] std::string text() const;
  void print() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace arancini::tools
