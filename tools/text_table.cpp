#include "tools/text_table.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <sstream>

namespace arancini::tools {

namespace {

std::size_t columns_of(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; }));
}

}  // namespace

std::string short_number(std::uint64_t n) {
  static constexpr const char* kUnits[] = {"", "k", "M", "G", "T", "P", "E"};
  if (n < 1000) return std::to_string(n);
  double value = static_cast<double>(n);
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, value < 9.95 ? "%.1f%s" : "%.0f%s", value, kUnits[unit]);
  return text;
}

std::string short_duration(std::uint64_t seconds) {
  char text[32];
  const auto two = [&](std::uint64_t major, char a, std::uint64_t minor, char b) {
    std::snprintf(text, sizeof text, "%llu%c%02llu%c", static_cast<unsigned long long>(major), a,
                  static_cast<unsigned long long>(minor), b);
    return std::string(text);
  };
  if (seconds < 60) return std::to_string(seconds) + "s";
  if (seconds < 3600) return two(seconds / 60, 'm', seconds % 60, 's');
  if (seconds < 86400) return two(seconds / 3600, 'h', seconds / 60 % 60, 'm');
  return two(seconds / 86400, 'd', seconds / 3600 % 24, 'h');
}

std::string fit(const std::string& text, std::size_t width) {
  std::size_t shown = 0;
  std::size_t cut = text.size();  // where the last column that fits begins
  for (std::size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0U) == 0x80U) continue;
    ++shown;
    if (shown == width) cut = i;
    if (shown > width) return text.substr(0, cut) + "~";
  }
  return text;
}

std::string wrapped(const std::string& text, std::size_t indent, std::size_t width) {
  std::string out;
  std::string line(indent, ' ');
  std::istringstream words(text);
  std::string word;
  while (words >> word) {
    if (line.size() > indent && line.size() + 1 + word.size() > width) {
      out += line + '\n';
      line.assign(indent, ' ');
    }
    if (line.size() > indent) line += ' ';
    line += word;
  }
  return line.size() > indent ? out + line + '\n' : out;
}
std::string TextTable::text() const {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t w = columns_[c].title.size();
    for (const auto& row : rows_) w = std::max(w, std::min(columns_[c].limit, columns_of(row[c])));
    widths.push_back(w);
  }
  std::string out;
  const auto add_row = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (std::size_t c = 0; c < cells.size(); ++c) {
      const std::string cell = fit(cells[c], widths[c]);
      const std::string pad(widths[c] - columns_of(cell), ' ');
      if (c > 0) line += "  ";
      line += columns_[c].right ? pad + cell : cell + pad;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  };
  std::vector<std::string> titles;
  for (const Column& c : columns_) titles.push_back(c.title);
  add_row(titles);
  for (const auto& row : rows_) add_row(row);
  return out;
}

void TextTable::print() const {
  const std::string all = text();
  std::fwrite(all.data(), 1, all.size(), stdout);
}

}  // namespace arancini::tools
