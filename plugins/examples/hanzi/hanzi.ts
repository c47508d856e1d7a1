// Chinese evasions: a character becomes one that looks like it (未 末), one of the same sound (微 威), its two halves side by side (好 女子),
// its pinyin (钱 qian), or the traditional form (钱 錢). Characters of the tables below only; other texts are left alone.
import { Text, register } from "../../sdk/assemblyscript/assembly/index";
export { temper_abi_version, temper_alloc, temper_perturb, temper_name } from "../../sdk/assemblyscript/assembly/index";

const alike: string[] = [
  "未末", "已己", "土士", "人入", "日曰", "大太", "天夫", "干千", "王玉", "田由", "甲申", "目自", "白百", "牛午", "乌鸟", "免兔", "今令", "刀力", "贝见",
  "儿几", "口囗", "石右", "失矢", "戊戌", "治冶", "侯候", "拔拨", "博搏", "密蜜", "赢羸", "辨辩", "第弟", "买卖", "电龟", "全金", "住佳", "栗粟", "晴睛",
];
const sounds: string[] = [
  "微威", "信芯", "加佳", "钱前", "赚撰", "发罚", "票漂", "买麦", "卖迈", "好郝", "看砍", "点典", "影映", "真珍", "假贾", "爱碍", "死似", "杀沙", "打搭",
  "网往", "赌堵", "博薄", "色涩", "贷代", "款宽", "免勉", "费废", "中忠", "奖蒋", "红洪", "包苞", "群裙", "号浩", "码马", "店电", "新心", "很狠", "差插",
];
const halves: string[] = [
  "好女子", "明日月", "林木木", "信亻言", "体亻本", "钱钅戋", "赚贝兼", "铃钅令", "话讠舌", "说讠兑", "请讠青", "他亻也", "她女也", "妈女马", "吗口马",
  "吧口巴", "吃口乞", "唱口昌", "打扌丁", "找扌戈", "把扌巴", "红纟工", "给纟合", "现王见", "理王里", "朋月月", "期其月", "加力口", "动云力", "功工力",
  "利禾刂", "和禾口", "种禾中", "秋禾火", "灯火丁", "烂火兰", "烧火尧", "款欠示", "视礻见", "福礻畐", "群君羊", "都者阝", "那尹阝", "影景彡", "彩采彡",
];
const pinyin: string[] = [
  "钱", "qian", "赚", "zhuan", "微", "wei", "信", "xin", "加", "jia", "好", "hao", "看", "kan", "电", "dian", "影", "ying", "真", "zhen", "假", "jia",
  "爱", "ai", "死", "si", "杀", "sha", "打", "da", "买", "mai", "卖", "mai", "免", "mian", "费", "fei", "中", "zhong", "奖", "jiang", "红", "hong",
  "包", "bao", "群", "qun", "号", "hao", "码", "ma", "赌", "du", "博", "bo", "色", "se", "贷", "dai", "款", "kuan", "发", "fa", "票", "piao", "网", "wang",
  "差", "cha", "烂", "lan", "垃", "la", "圾", "ji", "骗", "pian", "很", "hen", "坏", "huai", "棒", "bang", "赢", "ying", "点", "dian", "击", "ji",
];
const traditional: string[] = [
  "钱錢", "赚賺", "电電", "买買", "卖賣", "爱愛", "杀殺", "费費", "奖獎", "红紅", "号號", "码碼", "赌賭", "贷貸", "发發", "网網", "烂爛", "骗騙", "坏壞",
  "赢贏", "点點", "击擊", "话話", "说說", "请請", "妈媽", "吗嗎", "给給", "现現", "种種", "灯燈", "烧燒", "视視", "动動", "时時", "见見", "马馬", "乐樂",
];

// swap finds word in pairs: [0] becomes the rest, and the other way round where both says so.
function swap(out: string[], t: Text, i: i32, word: string, table: string[], both: boolean): void {
  for (let k = 0; k < table.length; k++) {
    const row = table[k];
    if (row.charAt(0) == word) out.push(t.replace(i, row.substring(1)));
    else if (both && row.charAt(1) == word) out.push(t.replace(i, row.charAt(0)));
  }
}

function perturb(t: Text): string[] {
  const out: string[] = [];
  for (let k = 0; k < t.may.length && out.length < t.max; k++) {
    const i = t.may[k], word = t.word(i);
    if (word.length != 1) continue;
    swap(out, t, i, word, alike, true);
    swap(out, t, i, word, sounds, true);
    swap(out, t, i, word, halves, false);
    swap(out, t, i, word, traditional, true);
    for (let p = 0; p < pinyin.length; p += 2) if (pinyin[p] == word) out.push(t.replace(i, pinyin[p + 1]));
  }
  return out;
}

register("hanzi", perturb);
